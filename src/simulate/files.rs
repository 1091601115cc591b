//! Which files are read, by kubectl's rules.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// A file that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Text {
    /// Path as given, or found below a directory that was given; `standard input` for `-`.
    pub(crate) name: String,
    /// What is in it.
    pub(crate) text: String,
}

/// Endings of the files of a directory that kubectl reads.
const ENDINGS: [&str; 3] = ["json", "yaml", "yml"];

/// Reads files, the `.yaml`, `.yml` and `.json` files of directories (of those below as well, if `recursive`), and
/// standard input for `-`.
///
/// The second list has one line for each path that cannot be read.
pub(crate) fn read(paths: &[String], recursive: bool) -> (Vec<Text>, Vec<String>) {
    let mut texts = Vec::new();
    let mut problems = Vec::new();
    let mut standard_input = false;
    for path in paths {
        if path == "-" {
            if std::mem::replace(&mut standard_input, true) {
                problems.push("-f -: standard input can be read once only".to_owned());
                continue;
            }
            match read_standard_input() {
                Ok(text) => texts.push(Text { name: "standard input".to_owned(), text }),
                Err(error) => problems.push(format!("standard input: {error}")),
            }
            continue;
        }
        if path.is_empty() {
            problems.push("-f '': an empty name; give a file, a directory, or - for standard input".to_owned());
            continue;
        }
        if path.starts_with("http://") || path.starts_with("https://") {
            problems
                .push(format!("{path}: addresses are not read; download it: curl -s {path} | aviary simulate -f -"));
            continue;
        }
        match files(Path::new(path), recursive) {
            Ok(files) if files.is_empty() => {
                let hint = if recursive { "" } else { "; -R also reads the directories below" };
                problems.push(format!("{path}: no .yaml, .yml or .json file in this directory{hint}"));
            }
            Ok(files) => {
                files.iter().for_each(|file| match fs::read(file).map_err(|error| plain(&error)).and_then(decode) {
                    Ok(text) => texts.push(Text { name: file.display().to_string(), text }),
                    Err(error) => problems.push(format!("{}: {error}", file.display())),
                })
            }
            Err(error) => problems.push(format!("{path}: {}", plain(&error))),
        }
    }
    (texts, problems)
}

/// Reads one file, or standard input for `-`.
///
/// # Errors
/// If it cannot be read.
pub(crate) fn read_one(path: &str) -> Result<Text, String> {
    if path == "-" {
        let text = read_standard_input().map_err(|error| format!("standard input: {error}"))?;
        return Ok(Text { name: "standard input".to_owned(), text });
    }
    let text = fs::read(path).map_err(|error| plain(&error)).and_then(decode);
    let text = text.map_err(|error| format!("{path}: {error}"))?;
    Ok(Text { name: path.to_owned(), text })
}

fn read_standard_input() -> Result<String, String> {
    let mut bytes = Vec::new();
    io::stdin().lock().read_to_end(&mut bytes).map_err(|error| plain(&error))?;
    decode(bytes)
}

/// UTF-8, or UTF-16 with a byte order mark: PowerShell writes that into files.
fn decode(bytes: Vec<u8>) -> Result<String, String> {
    let units = |unit: fn([u8; 2]) -> u16| -> Vec<u16> {
        bytes.chunks_exact(2).skip(1).filter_map(|pair| Some(unit(pair.try_into().ok()?))).collect()
    };
    let units = match bytes.as_slice() {
        [0xff, 0xfe, ..] => units(u16::from_le_bytes),
        [0xfe, 0xff, ..] => units(u16::from_be_bytes),
        _ => {
            return String::from_utf8(bytes).map_err(|error| {
                let before = error.as_bytes().get(..error.utf8_error().valid_up_to()).unwrap_or_default();
                let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
                format!("line {line} is not text in UTF-8")
            });
        }
    };
    String::from_utf16(&units).map_err(|_| "it begins as UTF-16 does, and is not".to_owned())
}

/// Without the number of the operating system's error.
fn plain(error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    text.to_lowercase()
}

/// A file itself, or the files of a directory in the order of their names.
fn files(path: &Path, recursive: bool) -> io::Result<Vec<PathBuf>> {
    if !fs::metadata(path)?.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut entries = fs::read_dir(path)?.collect::<io::Result<Vec<_>>>()?;
    entries.sort_by_key(fs::DirEntry::file_name);
    let mut found = Vec::new();
    for entry in entries {
        let path = entry.path();
        // Links to directories are not followed, as with kubectl: a loop of them would never end.
        if entry.file_type()?.is_dir() {
            if recursive {
                found.extend(files(&path, recursive)?);
            }
            continue;
        }
        let ending = path.extension().and_then(|ending| ending.to_str());
        if ending.is_some_and(|ending| ENDINGS.contains(&ending)) && path.is_file() {
            found.push(path);
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::*;

    #[test]
    fn directories_are_read_as_kubectl_reads_them() {
        let directory = tempfile::tempdir().unwrap();
        for file in ["b.yaml", "a.yml", "c.json", "d.txt", "below/e.yaml"] {
            let path = directory.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, file).unwrap();
        }
        let path = directory.path().display().to_string();
        let names = |recursive| -> Vec<String> {
            read(std::slice::from_ref(&path), recursive).0.into_iter().map(|file| file.text).collect()
        };
        assert_eq!(names(false), ["a.yml", "b.yaml", "c.json"]);
        assert_eq!(names(true), ["a.yml", "b.yaml", "below/e.yaml", "c.json"]);
        // A file that is named is read, whatever its name ends with.
        let text = format!("{path}/d.txt");
        assert_eq!(read(&[text], false).0[0].text, "d.txt");
    }

    #[test]
    fn what_powershell_writes_is_text_too() {
        let units = |text: &str, unit: fn(u16) -> [u8; 2]| text.encode_utf16().flat_map(unit).collect::<Vec<u8>>();
        assert_eq!(decode(units("\u{feff}a: ü\r\n", u16::to_le_bytes)).unwrap(), "a: ü\r\n");
        assert_eq!(decode(units("\u{feff}a: ü", u16::to_be_bytes)).unwrap(), "a: ü");
        assert_eq!(decode(b"a: 1\nb: \xff\n".to_vec()).expect_err("no text"), "line 2 is not text in UTF-8");
    }

    #[test]
    fn every_path_that_cannot_be_read_is_told() {
        let empty = tempfile::tempdir().unwrap();
        let empty = empty.path().display().to_string();
        let paths = ["nowhere.yaml".to_owned(), "https://example.com/a.yaml".to_owned(), empty.clone()];
        let (_, problems) = read(&paths, false);
        assert_eq!(problems[0], "nowhere.yaml: no such file or directory");
        assert!(problems[1].starts_with("https://example.com/a.yaml: addresses are not read"), "{problems:?}");
        assert!(problems[2].starts_with(&format!("{empty}: no .yaml")), "{problems:?}");
    }
}
