//! What the three resources have in common: identity and the outer shape of an object.

/// Implements `kube::Resource` and `Serialize` (with `apiVersion` and `kind`, which the types do not store) for a
/// namespaced resource of `flagger.app/v1beta1` with the fields `metadata`, `spec` and `status`.
macro_rules! flagger_resource {
    ($resource:ty, kind: $kind:literal, plural: $plural:literal) => {
        impl kube::Resource for $resource {
            type DynamicType = ();
            type Scope = k8s_openapi::NamespaceResourceScope;

            fn kind((): &()) -> std::borrow::Cow<'_, str> {
                $kind.into()
            }

            fn group((): &()) -> std::borrow::Cow<'_, str> {
                crate::names::GROUP.into()
            }

            fn version((): &()) -> std::borrow::Cow<'_, str> {
                crate::names::VERSION.into()
            }

            fn plural((): &()) -> std::borrow::Cow<'_, str> {
                $plural.into()
            }

            fn meta(&self) -> &k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta {
                &self.metadata
            }

            fn meta_mut(&mut self) -> &mut k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta {
                &mut self.metadata
            }
        }

        impl serde::Serialize for $resource {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                use serde::ser::SerializeStruct;

                let fields = if self.status.is_some() { 5 } else { 4 };
                let mut object = serializer.serialize_struct($kind, fields)?;
                object.serialize_field("apiVersion", crate::names::API_VERSION)?;
                object.serialize_field("kind", $kind)?;
                object.serialize_field("metadata", &self.metadata)?;
                object.serialize_field("spec", &self.spec)?;
                if let Some(status) = &self.status {
                    object.serialize_field("status", status)?;
                }
                object.end()
            }
        }
    };
}

pub(crate) use flagger_resource;
