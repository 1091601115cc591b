//! The body of a remote write: the few protobuf messages of `prometheus.WriteRequest`, as an uncompressed snappy block.

use aviary_promql::Series;

const VARINT: u64 = 0;
const FIXED_64: u64 = 1;
const BYTES: u64 = 2;

/// `WriteRequest { timeseries = 1 }`, `TimeSeries { labels = 1, samples = 2 }`, `Label { name = 1, value = 2 }`,
/// `Sample { value = 1, timestamp = 2 }`.
pub(crate) fn request(series: &[Series]) -> Vec<u8> {
    let mut message = Vec::new();
    for series in series {
        let mut encoded = Vec::new();
        for (name, value) in series.labels.iter() {
            let mut label = Vec::new();
            bytes(&mut label, 1, name.as_bytes());
            bytes(&mut label, 2, value.as_bytes());
            bytes(&mut encoded, 1, &label);
        }
        for (at_ms, value) in &series.samples {
            let mut sample = Vec::new();
            varint(&mut sample, (1 << 3) | FIXED_64);
            sample.extend(value.to_bits().to_le_bytes());
            varint(&mut sample, (2 << 3) | VARINT);
            varint(&mut sample, u64::try_from(*at_ms).unwrap());
            bytes(&mut encoded, 2, &sample);
        }
        bytes(&mut message, 1, &encoded);
    }
    snappy(&message)
}

fn bytes(message: &mut Vec<u8>, field: u64, content: &[u8]) {
    varint(message, (field << 3) | BYTES);
    varint(message, content.len() as u64);
    message.extend(content);
}

fn varint(message: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        message.push(u8::try_from(value & 0x7f).unwrap() | 0x80);
        value >>= 7;
    }
    message.push(u8::try_from(value).unwrap());
}

/// The snappy block format allows literals only: nothing is compressed.
fn snappy(message: &[u8]) -> Vec<u8> {
    let mut block = Vec::new();
    varint(&mut block, message.len() as u64);
    for literal in message.chunks(1 << 16) {
        // Tag 61: the length, less one, follows in two bytes.
        block.push(61 << 2);
        block.extend(u16::try_from(literal.len() - 1).unwrap().to_le_bytes());
        block.extend(literal);
    }
    block
}
