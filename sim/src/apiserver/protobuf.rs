//! Reading request bodies in Kubernetes' protobuf encoding, which `kubectl create deployment` and typed Go clients send to
//! built-in kinds. Answers are JSON, which all of them take as well.

use k8s_openapi::ByteString;
use serde_json::{Map, Value, json};

use super::openapi::definitions::Definition;
use super::schema::{Encoding, SchemaRef};

/// First bytes of every such body.
const MAGIC: &[u8] = b"k8s\0";

/// A body that cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum ProtobufError {
    /// It does not begin with the magic number.
    #[error("provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]")]
    Magic,
    /// It breaks off, or says that something is longer than it is.
    #[error("unexpected EOF")]
    Truncated,
    /// A field whose wire type is not that of its type.
    #[error("proto: wrong wireType")]
    WireType,
    /// A kind that nobody here knows in protobuf.
    #[error("no kind is registered for the type")]
    UnknownKind,
}

/// Reads a body: `runtime.Unknown` around a message of a built-in kind.
///
/// # Errors
/// Bodies that are no such message.
pub(super) fn decode(bytes: &[u8]) -> Result<Value, ProtobufError> {
    let envelope = bytes.strip_prefix(MAGIC).ok_or(ProtobufError::Magic)?;
    let (mut api_version, mut kind, mut raw) = (String::new(), String::new(), &[][..]);
    for field in Fields(envelope) {
        match field? {
            (1, Wire::Bytes(type_meta)) => {
                api_version = text_field(type_meta, 1)?;
                kind = text_field(type_meta, 2)?;
            }
            (2, Wire::Bytes(message)) => raw = message,
            _ => {}
        }
    }
    let (group, version) = api_version.split_once('/').unwrap_or(("", &api_version));
    let definition = match kind.as_str() {
        "DeleteOptions" => Definition::find("io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions"),
        _ => Definition::of_kind(group, version, &kind),
    };
    let definition = definition.ok_or(ProtobufError::UnknownKind)?;
    let mut object = Map::new();
    read_message(definition, "", raw, &mut object)?;
    object.insert("apiVersion".to_owned(), json!(api_version));
    object.insert("kind".to_owned(), json!(kind));
    Ok(Value::Object(object))
}

/// Reads a message, or (with a prefix) one that JSON inlines.
fn read_message(
    definition: &'static Definition,
    prefix: &str,
    bytes: &[u8],
    into: &mut Map<String, Value>,
) -> Result<(), ProtobufError> {
    let schema = definition.schema();
    for field in Fields(bytes) {
        let (number, wire) = field?;
        let number = format!("{prefix}{number}");
        let named = definition.go_types().iter().find(|(_, go_type)| go_type.protobuf_number == number);
        if let Some((name, _)) = named {
            if let Some(field_schema) = schema.property_ref(name) {
                read_field(field_schema, wire, name, into)?;
            }
            continue;
        }
        let inlined = format!("{number}.");
        let is_inlined = definition.go_types().values().any(|go_type| go_type.protobuf_number.starts_with(&inlined));
        if let (true, Wire::Bytes(message)) = (is_inlined, wire) {
            read_message(definition, &inlined, message, into)?;
        }
    }
    Ok(())
}

fn read_field(
    schema: &SchemaRef,
    wire: Wire<'_>,
    name: &str,
    into: &mut Map<String, Value>,
) -> Result<(), ProtobufError> {
    if schema.encoding().is_none() && schema.is_array() {
        let list = into.entry(name.to_owned()).or_insert_with(|| json!([]));
        if let (Some(list), Some(item_schema)) = (list.as_array_mut(), schema.items_ref()) {
            list.push(read_value(item_schema, wire)?);
        }
        return Ok(());
    }
    if let Some(value_schema) = schema.additional_ref() {
        let Wire::Bytes(entry) = wire else {
            return Err(ProtobufError::WireType);
        };
        let mut value = Value::Null;
        for field in Fields(entry) {
            if let (2, wire) = field? {
                value = read_value(value_schema, wire)?;
            }
        }
        let key = text_field(entry, 1)?;
        let map = into.entry(name.to_owned()).or_insert_with(|| json!({}));
        map[key] = value;
        return Ok(());
    }
    into.insert(name.to_owned(), read_value(schema, wire)?);
    Ok(())
}

fn read_value(schema: &SchemaRef, wire: Wire<'_>) -> Result<Value, ProtobufError> {
    match wire {
        Wire::Varint(number) if schema.is_type("boolean") => Ok(json!(number != 0)),
        // Negative numbers are written as 64 bits, whatever their type.
        Wire::Varint(number) => Ok(json!(number.cast_signed())),
        Wire::Fixed64(bits) => Ok(json!(f64::from_bits(bits))),
        Wire::Fixed32(bits) => Ok(json!(f32::from_bits(bits))),
        Wire::Bytes(bytes) => read_bytes(schema, bytes),
    }
}

fn read_bytes(schema: &SchemaRef, bytes: &[u8]) -> Result<Value, ProtobufError> {
    match schema.encoding() {
        Some(Encoding::Quantity) => return Ok(json!(text_field(bytes, 1)?)),
        Some(encoding @ (Encoding::Time | Encoding::MicroTime)) => return read_time(encoding, bytes),
        Some(Encoding::Raw) => {
            let raw = bytes_field(bytes, 1)?;
            return serde_json::from_slice(raw).map_err(|_| ProtobufError::WireType);
        }
        Some(Encoding::Schema) => return Err(ProtobufError::UnknownKind),
        None => {}
    }
    if schema.is_int_or_string() {
        let is_text = number_field(bytes, 1)? == 1;
        return Ok(if is_text { json!(text_field(bytes, 3)?) } else { json!(number_field(bytes, 2)?) });
    }
    if schema.is_type("string") {
        if schema.is_bytes() {
            return serde_json::to_value(ByteString(bytes.to_vec())).map_err(|_| ProtobufError::WireType);
        }
        return Ok(json!(std::str::from_utf8(bytes).map_err(|_| ProtobufError::WireType)?));
    }
    let Some(definition) = schema.definition() else {
        return Err(ProtobufError::WireType);
    };
    let mut object = Map::new();
    read_message(definition, "", bytes, &mut object)?;
    Ok(Value::Object(object))
}

/// Seconds and nanoseconds; both zero is Go's zero time, which is null in JSON.
fn read_time(encoding: Encoding, bytes: &[u8]) -> Result<Value, ProtobufError> {
    let (seconds, nanos) = (number_field(bytes, 1)?, number_field(bytes, 2)?);
    if seconds == 0 && nanos == 0 {
        return Ok(Value::Null);
    }
    let nanos = i32::try_from(nanos).map_err(|_| ProtobufError::WireType)?;
    let time = jiff::Timestamp::new(seconds, nanos).map_err(|_| ProtobufError::WireType)?;
    Ok(json!(super::schema::decode::format_time(encoding, time)))
}

fn text_field(message: &[u8], number: u64) -> Result<String, ProtobufError> {
    String::from_utf8(bytes_field(message, number)?.to_vec()).map_err(|_| ProtobufError::WireType)
}

fn bytes_field(message: &[u8], number: u64) -> Result<&[u8], ProtobufError> {
    for field in Fields(message) {
        if let (found, Wire::Bytes(bytes)) = field?
            && found == number
        {
            return Ok(bytes);
        }
    }
    Ok(&[])
}

fn number_field(message: &[u8], number: u64) -> Result<i64, ProtobufError> {
    for field in Fields(message) {
        if let (found, Wire::Varint(value)) = field?
            && found == number
        {
            return Ok(value.cast_signed());
        }
    }
    Ok(0)
}

/// A field's value as it is on the wire.
#[derive(Debug, Clone, Copy)]
enum Wire<'a> {
    Varint(u64),
    Fixed64(u64),
    Fixed32(u32),
    Bytes(&'a [u8]),
}

/// The fields of a message.
struct Fields<'a>(&'a [u8]);

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u64, Wire<'a>), ProtobufError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.read();
        if field.is_err() {
            // Nothing sensible can follow.
            self.0 = &[];
        }
        Some(field)
    }
}

impl<'a> Fields<'a> {
    fn read(&mut self) -> Result<(u64, Wire<'a>), ProtobufError> {
        let tag = self.varint()?;
        let wire = match tag & 7 {
            0 => Wire::Varint(self.varint()?),
            1 => Wire::Fixed64(u64::from_le_bytes(self.array()?)),
            2 => {
                let length = usize::try_from(self.varint()?).map_err(|_| ProtobufError::Truncated)?;
                Wire::Bytes(self.take(length)?)
            }
            5 => Wire::Fixed32(u32::from_le_bytes(self.array()?)),
            _ => return Err(ProtobufError::WireType),
        };
        Ok((tag >> 3, wire))
    }

    fn varint(&mut self) -> Result<u64, ProtobufError> {
        let mut value = 0;
        // Ten bytes of seven bits hold 64 bits.
        for shift in (0..70).step_by(7) {
            let byte = self.take(1)?[0];
            value |= u64::from(byte & 0x7F).checked_shl(shift).unwrap_or(0);
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(ProtobufError::Truncated)
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], ProtobufError> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or(ProtobufError::Truncated)?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], ProtobufError> {
        self.take(N)?.try_into().map_err(|_| ProtobufError::Truncated)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use serde_json::json;

    use super::{ProtobufError, decode};

    /// What `kubectl create configmap x2 --from-literal=a=b` sends (kubectl 1.36).
    const CONFIG_MAP: &[u8] = b"k8s\0\x0a\x0f\x0a\x02v1\x12\x09ConfigMap\x12\x1c\x0a\x12\x0a\x02x2\x12\x00\x1a\x00\
        \x22\x00\x2a\x00\x32\x00\x38\x00\x42\x00\x12\x06\x0a\x01a\x12\x01b\x1a\x00\x22\x00";

    #[test]
    fn a_config_map_of_kubectl_is_read() {
        let object = decode(CONFIG_MAP).unwrap();
        assert_eq!(object["apiVersion"], "v1");
        assert_eq!(object["kind"], "ConfigMap");
        assert_eq!(object["metadata"]["name"], "x2");
        assert_eq!(object["data"], json!({"a": "b"}));
    }

    #[test]
    fn a_body_cut_anywhere_is_refused_or_shorter_but_never_a_panic() {
        for length in 0..CONFIG_MAP.len() {
            // Cut between two fields the rest is a message too; what matters is that every cut is survived.
            let _ = decode(&CONFIG_MAP[..length]);
        }
        assert_eq!(decode(b"{}"), Err(ProtobufError::Magic));
        assert_eq!(decode(&CONFIG_MAP[..CONFIG_MAP.len() - 20]), Err(ProtobufError::Truncated));
    }

    #[test]
    fn inlined_messages_and_special_types_are_read() {
        // Pod.spec(2).volumes(1){name(1) "v", volumeSource(2){emptyDir(2){sizeLimit(2){string(1) "1Gi"}}}}
        let volume = b"\x0a\x01v\x12\x09\x12\x07\x12\x05\x0a\x031Gi";
        let mut body = b"k8s\0\x0a\x09\x0a\x02v1\x12\x03Pod\x12".to_vec();
        let volume_length = u8::try_from(volume.len()).unwrap();
        body.extend([volume_length + 4, 0x12, volume_length + 2, 0x0A, volume_length]);
        body.extend(volume);
        let pod = decode(&body).unwrap();
        assert_eq!(pod["spec"]["volumes"], json!([{"name": "v", "emptyDir": {"sizeLimit": "1Gi"}}]));
    }
}
