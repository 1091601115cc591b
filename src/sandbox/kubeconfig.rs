//! The file through which clients find the sandbox: written when it is ready, gone when it ends, and nobody else's.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use kube::config::Kubeconfig;
use serde_json::{Value, json};

use super::addons;
use super::follow::{EXTENSION, Extension};

/// Name of context, cluster and user in the kubeconfig.
pub(super) const CONTEXT: &str = "aviary-sandbox";

/// A sandbox on this machine accepts a connection in microseconds; a listener that takes longer is no reason to wait.
const CONNECT_LIMIT: Duration = Duration::from_millis(300);

/// What the file says.
pub(super) fn content(server: &str, speed: f64) -> Value {
    let extension = Extension {
        pid: std::process::id(),
        speed,
        clock: addons::CLOCK_PATH.to_owned(),
        search_namespace: addons::SEARCH_NAMESPACE.to_owned(),
    };
    json!({
        "apiVersion": "v1", "kind": "Config", "current-context": CONTEXT,
        "clusters": [{"name": CONTEXT, "cluster": {
            "server": server, "extensions": [{"name": EXTENSION, "extension": extension}],
        }}],
        "users": [{"name": CONTEXT, "user": {}}],
        "contexts": [{"name": CONTEXT, "context": {"cluster": CONTEXT, "namespace": "default", "user": CONTEXT}}],
    })
}

/// A file that is the sandbox's to write. One that was written is removed when this is dropped, unless another sandbox
/// has taken it over.
pub(super) struct KubeconfigFile {
    path: PathBuf,
    written: Option<String>,
}

impl KubeconfigFile {
    /// Makes sure that nothing is lost when the file is written.
    pub(super) fn claim(path: &Path) -> anyhow::Result<KubeconfigFile> {
        let path = std::path::absolute(path).with_context(|| format!("write {} (--kubeconfig)", path.display()))?;
        // A link is followed, as every other program does.
        let path = fs::canonicalize(&path).unwrap_or(path);
        let shown = path.display();
        let directory = path.parent().unwrap_or(&path);
        if !directory.is_dir() {
            bail!("write {shown} (--kubeconfig): there is no directory {}", directory.display());
        }
        match fs::read_to_string(&path) {
            Ok(text) => refuse_unless_left_over(&text, &path)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) if error.kind() == io::ErrorKind::InvalidData => refuse_unless_left_over("", &path)?,
            Err(error) => return Err(error).with_context(|| format!("write {shown} (--kubeconfig)")),
        }
        Ok(KubeconfigFile { path, written: None })
    }

    /// Writes the file in one go: a reader finds all of it or nothing.
    pub(super) fn write(mut self, content: &Value) -> anyhow::Result<KubeconfigFile> {
        let failed = || format!("write {} (--kubeconfig)", self.path.display());
        let text = serde_saphyr::to_string(content).with_context(failed)?;
        replace(&self.path, &text).with_context(failed)?;
        self.written = Some(text);
        Ok(self)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for KubeconfigFile {
    fn drop(&mut self) {
        let is_ours = |text: &String| fs::read_to_string(&self.path).is_ok_and(|present| present == *text);
        if self.written.as_ref().is_some_and(is_ours)
            && let Err(error) = fs::remove_file(&self.path)
        {
            tracing::warn!("{} is left behind: {error}", self.path.display());
        }
    }
}

/// What a sandbox left that was killed may be overwritten; what a person wrote, or one that runs, may not.
fn refuse_unless_left_over(text: &str, path: &Path) -> anyhow::Result<()> {
    let shown = path.display();
    // A temporary file that somebody made to have a name.
    if text.trim().is_empty() && path.metadata().is_ok_and(|file| file.len() == 0) {
        return Ok(());
    }
    let known = Kubeconfig::from_yaml(text).ok();
    let Some((server, extension)) = known.as_ref().and_then(Extension::find) else {
        bail!("{shown} (--kubeconfig) exists and is no sandbox's: name another file, or remove it");
    };
    if runs(&server, extension.pid) {
        bail!(
            "{shown} (--kubeconfig) belongs to a sandbox that runs at {server} (pid {}): end it, or name another file",
            extension.pid
        );
    }
    Ok(())
}

/// Whether somebody listens there, and is not somebody else who has got the port since.
fn runs(server: &str, pid: u32) -> bool {
    let processes = Path::new("/proc/self");
    if processes.exists() && !processes.with_file_name(pid.to_string()).exists() {
        return false;
    }
    let address: Option<SocketAddr> = server.strip_prefix("http://").and_then(|address| address.parse().ok());
    address.is_some_and(|address| TcpStream::connect_timeout(&address, CONNECT_LIMIT).is_ok())
}

/// Nobody but its owner reads a kubeconfig; kubectl warns of others.
const MODE: u32 = 0o600;

fn replace(path: &Path, text: &str) -> io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}", std::process::id()));
    let draft = path.with_file_name(name);
    let write = || {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(MODE).open(&draft)?;
        file.write_all(text.as_bytes())?;
        fs::rename(&draft, path)
    };
    write().inspect_err(|_| {
        // There may be none.
        let _ = fs::remove_file(&draft);
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use std::net::TcpListener;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    /// An address at which nobody listens: nobody may listen on this port without being asked.
    const NOBODY: &str = "http://127.0.0.1:1";

    fn refusal(path: &Path) -> String {
        format!("{:#}", KubeconfigFile::claim(path).err().expect("refused"))
    }

    #[test]
    fn the_file_is_private_and_gone_afterwards() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("sandbox.yaml");
        let file = KubeconfigFile::claim(&path).unwrap().write(&content(NOBODY, 60.0)).unwrap();
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        let kubeconfig = Kubeconfig::read_from(&path).unwrap();
        let (server, extension) = Extension::find(&kubeconfig).unwrap();
        assert_eq!((server.as_str(), extension.speed, extension.pid), (NOBODY, 60.0, std::process::id()));
        drop(file);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0, "neither file nor draft is left");
    }

    #[test]
    fn what_a_killed_sandbox_left_is_overwritten_and_nothing_else() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("sandbox.yaml");
        let text = |value: Value| serde_saphyr::to_string(&value).unwrap();

        fs::write(&path, text(content(NOBODY, 1.0))).unwrap();
        KubeconfigFile::claim(&path).unwrap();
        fs::write(&path, "").unwrap();
        KubeconfigFile::claim(&path).unwrap();

        for precious in ["a: b\n", "  ", "apiVersion: v1\nkind: Config\nclusters: []\n"] {
            fs::write(&path, precious).unwrap();
            assert!(refusal(&path).ends_with("exists and is no sandbox's: name another file, or remove it"));
        }
        fs::write(&path, [0xff, 0xfe]).unwrap();
        assert!(refusal(&path).contains("is no sandbox's"));
        assert!(path.exists());

        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = format!("http://{}", listener.local_addr().unwrap());
        fs::write(&path, text(content(&server, 1.0))).unwrap();
        assert!(refusal(&path).contains(&format!("runs at {server} (pid {})", std::process::id())));
        let mut of_the_dead = content(&server, 1.0);
        of_the_dead["clusters"][0]["cluster"]["extensions"][0]["extension"]["pid"] = json!(u32::MAX);
        fs::write(&path, text(of_the_dead)).unwrap();
        KubeconfigFile::claim(&path).expect("somebody else has the port by now");
    }

    #[test]
    fn a_file_that_another_sandbox_took_over_stays() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("sandbox.yaml");
        let first = KubeconfigFile::claim(&path).unwrap().write(&content(NOBODY, 1.0)).unwrap();
        let second = KubeconfigFile::claim(&path).unwrap().write(&content("http://127.0.0.1:2", 1.0)).unwrap();
        drop(first);
        assert!(path.exists());
        drop(second);
        assert!(!path.exists());
    }

    #[test]
    fn places_that_cannot_be_written_are_named() {
        assert!(refusal(Path::new("/nowhere/at/all")).contains("there is no directory /nowhere/at"));
        assert!(refusal(Path::new("/tmp")).contains("write /tmp (--kubeconfig): Is a directory"));
    }
}
