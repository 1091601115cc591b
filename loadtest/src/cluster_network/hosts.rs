//! The names of services, in a hosts file.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::net::IpAddr;
use std::path::PathBuf;

use super::observed::Key;

/// The lines between these two are kept; all others are somebody else's.
const BEGIN: &str = "# BEGIN services of the cluster";
const END: &str = "# END services of the cluster";

/// A hosts file that is kept in step with services.
///
/// It is written in place: it may be mounted over another file, and a new file under its name would not be seen there.
pub(super) struct HostsFile {
    path: PathBuf,
    /// In it, services are reachable by their names alone.
    namespace: Option<String>,
    written: Option<String>,
}

impl HostsFile {
    pub(super) fn new(path: PathBuf, namespace: Option<String>) -> Self {
        HostsFile { path, namespace, written: None }
    }

    /// Writes the names, unless they are those of the last time.
    pub(super) fn write(&mut self, services: &BTreeMap<Key, Vec<IpAddr>>) -> io::Result<()> {
        let lines = lines(services, self.namespace.as_deref());
        if self.written.as_ref() == Some(&lines) {
            return Ok(());
        }
        let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&self.path)?;
        let mut before = String::new();
        file.read_to_string(&mut before)?;
        overwrite(&mut file, &before, &replaced(&before, &lines))?;
        self.written = Some(lines);
        Ok(())
    }
}

/// Whoever reads the file meanwhile finds all of the new lines or all of the old ones, followed by empty lines at worst.
fn overwrite(file: &mut File, before: &str, after: &str) -> io::Result<()> {
    let mut padded = after.to_owned();
    padded.extend(std::iter::repeat_n('\n', before.len().saturating_sub(after.len())));
    file.rewind()?;
    file.write_all(padded.as_bytes())?;
    file.set_len(after.len() as u64)
}

fn lines(services: &BTreeMap<Key, Vec<IpAddr>>, own: Option<&str>) -> String {
    let mut lines = String::new();
    for ((namespace, name), addresses) in services {
        for address in addresses {
            let short = if own == Some(namespace) { format!(" {name}") } else { String::new() };
            // Writing to a string does not fail.
            let _ = writeln!(
                lines,
                "{address}{short} {name}.{namespace} {name}.{namespace}.svc {name}.{namespace}.svc.cluster.local"
            );
        }
    }
    lines
}

/// The text with these lines between the markers, which are put at the end where there are none.
fn replaced(text: &str, lines: &str) -> String {
    let block = format!("{BEGIN}\n{lines}{END}\n");
    let begin = text.lines().position(|line| line == BEGIN);
    let end = text.lines().position(|line| line == END);
    match begin.zip(end).filter(|(begin, end)| begin < end) {
        Some((begin, end)) => {
            let kept =
                |lines: &mut dyn Iterator<Item = &str>| lines.map(|line| format!("{line}\n")).collect::<String>();
            let head = kept(&mut text.lines().take(begin));
            let tail = kept(&mut text.lines().skip(end + 1));
            format!("{head}{block}{tail}")
        }
        None if text.is_empty() || text.ends_with('\n') => format!("{text}{block}"),
        None => format!("{text}\n{block}"),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::fs;
    use std::os::unix::fs::MetadataExt;

    use super::*;

    fn services(list: &[(&str, &str, &[&str])]) -> BTreeMap<Key, Vec<IpAddr>> {
        let service = |(namespace, name, addresses): &(&str, &str, &[&str])| {
            let addresses = addresses.iter().map(|address| address.parse().unwrap()).collect();
            (((*namespace).to_owned(), (*name).to_owned()), addresses)
        };
        list.iter().map(service).collect()
    }

    #[test]
    fn services_get_their_names_in_place_and_foreign_lines_stay() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("hosts");
        fs::write(&path, "127.0.0.1 localhost\n10.99.0.1 prometheus").unwrap();
        let inode = fs::metadata(&path).unwrap().ino();
        let mut hosts = HostsFile::new(path.clone(), Some("test".to_owned()));
        hosts
            .write(&services(&[("test", "podinfo", &["10.0.0.1"]), ("shop", "till", &["10.0.0.2", "10.0.0.3"])]))
            .unwrap();
        fs::write(&path, fs::read_to_string(&path).unwrap() + "10.99.0.2 later\n").unwrap();
        let read = || fs::read_to_string(&path).unwrap();
        assert_eq!(
            read(),
            "127.0.0.1 localhost\n10.99.0.1 prometheus\n\
             # BEGIN services of the cluster\n\
             10.0.0.2 till.shop till.shop.svc till.shop.svc.cluster.local\n\
             10.0.0.3 till.shop till.shop.svc till.shop.svc.cluster.local\n\
             10.0.0.1 podinfo podinfo.test podinfo.test.svc podinfo.test.svc.cluster.local\n\
             # END services of the cluster\n\
             10.99.0.2 later\n"
        );
        hosts.write(&services(&[])).unwrap();
        assert_eq!(
            read(),
            "127.0.0.1 localhost\n10.99.0.1 prometheus\n# BEGIN services of the cluster\n\
             # END services of the cluster\n10.99.0.2 later\n"
        );
        assert_eq!(fs::metadata(&path).unwrap().ino(), inode);
    }

    #[test]
    fn markers_in_the_wrong_order_are_left_alone() {
        let text = format!("{END}\n{BEGIN}\n");
        assert_eq!(replaced(&text, "x\n"), format!("{text}{BEGIN}\nx\n{END}\n"));
    }
}
