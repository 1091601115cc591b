//! What this process has used, as Linux tells it. Elsewhere everything is unknown.

use std::fs;

/// Clock ticks per second in `/proc`: 100 on every Linux platform that Rust supports (`USER_HZ`).
const TICKS_PER_SECOND: f64 = 100.0;

/// CPU time of all threads so far, in user and in kernel mode, in seconds.
pub(crate) fn cpu_seconds() -> Option<f64> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    // The second field is the program's name in parentheses, and may hold spaces.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut times = fields.split_whitespace().skip(11).map_while(|field| field.parse::<f64>().ok());
    Some((times.next()? + times.next()?) / TICKS_PER_SECOND)
}

/// Resident memory at present, in bytes.
pub(crate) fn resident_bytes() -> Option<u64> {
    status_kilobytes("VmRSS:").map(|kilobytes| kilobytes * 1024)
}

/// The most resident memory that there was, in bytes.
pub(crate) fn peak_resident_bytes() -> Option<u64> {
    status_kilobytes("VmHWM:").map(|kilobytes| kilobytes * 1024)
}

fn status_kilobytes(field: &str) -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(field))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn memory_and_time_are_plausible() {
        let ballast = vec![1_u8; 64 << 20];
        let resident = resident_bytes().unwrap();
        assert!(resident > ballast.len() as u64, "{resident}");
        assert!(peak_resident_bytes().unwrap() >= resident);
        let started = std::time::Instant::now();
        let before = cpu_seconds().unwrap();
        while cpu_seconds().unwrap() < before + 0.05 {
            assert!(started.elapsed().as_secs() < 30, "the CPU time does not rise");
        }
    }
}
