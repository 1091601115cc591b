//! The OpenAPI v2 document, which says where the types are and nothing of them.
//!
//! kubectl asks for it about kinds that no version 3 document has, and goes on to say that there is no such kind. Without the
//! document it says that it cannot validate the object.

use bytes::Bytes;
use serde_json::json;

use super::super::response::Answer;
use crate::store::to_bytes;

const TITLE: &str = "Kubernetes";
const VERSION: &str = "v1.36.3";
const DESCRIPTION: &str = "The types and paths of this server are described in /openapi/v3.";

/// The media type of the document in protobuf (`openapi.v2.Document` of gnostic).
const PROTOBUF: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";
/// The older name, by which clients made of Go ask for it. They cannot read it in an answer: an `@` has no place there.
const OLDER_PROTOBUF: &str = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";

/// Numbers of fields of `openapi.v2.Document` and of its `Info`.
mod number {
    pub(super) const SWAGGER: u8 = 1;
    pub(super) const INFO: u8 = 2;
    pub(super) const PATHS: u8 = 8;
    pub(super) const DEFINITIONS: u8 = 9;
    pub(super) const TITLE: u8 = 1;
    pub(super) const VERSION: u8 = 2;
    pub(super) const DESCRIPTION: u8 = 3;
}

pub(super) fn answer(accept: &str) -> Answer {
    if accept.split([',', ';']).any(|media_type| [PROTOBUF, OLDER_PROTOBUF].contains(&media_type.trim())) {
        let mut answer = Answer::json(200, Bytes::from(protobuf()));
        answer.content_type = Some(PROTOBUF.to_owned());
        return answer;
    }
    let document = json!({
        "swagger": "2.0", "info": {"title": TITLE, "version": VERSION, "description": DESCRIPTION}, "paths": {},
        "definitions": {},
    });
    Answer::json(200, to_bytes(&document))
}

fn protobuf() -> Vec<u8> {
    let mut info = Vec::new();
    for (number, text) in [(number::TITLE, TITLE), (number::VERSION, VERSION), (number::DESCRIPTION, DESCRIPTION)] {
        write_field(number, text.as_bytes(), &mut info);
    }
    let mut document = Vec::new();
    // kubectl looks into the messages of paths and definitions without asking whether they are there.
    let fields: [(u8, &[u8]); 4] =
        [(number::SWAGGER, b"2.0"), (number::INFO, &info), (number::PATHS, b""), (number::DEFINITIONS, b"")];
    for (number, bytes) in fields {
        write_field(number, bytes, &mut document);
    }
    document
}

/// A text or message; none here is longer than what one byte of length can say (127).
fn write_field(number: u8, bytes: &[u8], into: &mut Vec<u8>) {
    /// The wire type of fields that begin with their length.
    const LENGTH_DELIMITED: u8 = 2;
    into.push(number << 3 | LENGTH_DELIMITED);
    into.push(u8::try_from(bytes.len()).unwrap_or(0) & 0x7f);
    into.extend_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use super::protobuf;

    #[test]
    fn the_document_is_made_of_fields_of_their_length() {
        let document = protobuf();
        let mut fields = Vec::new();
        let mut rest = document.as_slice();
        while let [tag, length, tail @ ..] = rest {
            let (content, next) = tail.split_at(usize::from(*length));
            fields.push((tag >> 3, content.len()));
            rest = next;
        }
        assert_eq!(fields.len(), 4);
        assert_eq!(fields.iter().map(|(number, _)| *number).collect::<Vec<_>>(), [1, 2, 8, 9]);
        assert!(fields[1].1 < 128, "lengths of one byte");
    }
}
