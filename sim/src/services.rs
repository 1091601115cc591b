//! Services that the cluster answers itself, and the API server's proxy to them.
//!
//! Containers do not run here, so a service that is to say something is a function. It is reached as on any cluster from
//! outside: through `/api/v1/namespaces/NAMESPACE/services/NAME:PORT/proxy/…`.

mod proxy;

use std::collections::HashMap;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use futures::future::BoxFuture;
use http::{Request, Response};
use parking_lot::RwLock;

pub use proxy::{FrontError, Frontend};

/// Answers the requests to a service. An error is what a client sees of a process that does not listen or breaks off.
pub type Backend = Arc<dyn Fn(Request<Bytes>) -> BoxFuture<'static, io::Result<Response<Bytes>>> + Send + Sync>;

/// The services that are answered in process. Clones share them.
#[derive(Clone, Default)]
pub struct Services {
    backends: Arc<RwLock<HashMap<Name, Backend>>>,
}

/// A service's namespace and name; without a namespace in all of them.
type Name = (Option<String>, String);

impl Services {
    /// Answers for the service of this name in one namespace. The Service object is up to the caller: as on any cluster,
    /// the proxy does not know a service without one.
    pub fn answer(&self, namespace: &str, name: &str, backend: Backend) {
        self.backends.write().insert((Some(namespace.to_owned()), name.to_owned()), backend);
    }

    /// Answers for this name in every namespace, whether or not there is a Service object.
    pub fn answer_everywhere(&self, name: &str, backend: Backend) {
        self.backends.write().insert((None, name.to_owned()), backend);
    }

    fn of_namespace(&self, namespace: &str, name: &str) -> Option<Backend> {
        self.backends.read().get(&(Some(namespace.to_owned()), name.to_owned())).cloned()
    }

    fn of_all(&self, name: &str) -> Option<Backend> {
        self.backends.read().get(&(None, name.to_owned())).cloned()
    }
}
