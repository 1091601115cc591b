use std::time::Duration;
use crate::support::{World, in_virtual_time};
#[test]
fn offsets() {
    for offset in 0..50u64 {
        in_virtual_time(async {
            let mut world = World::new(21);
            world.deploy("podinfo").await;
            world.start();
            world.wait_for_phase("podinfo", "Initialized").await;
            world.pass(Duration::from_millis(120_000 + offset * 100)).await;
            let start = world.cluster.clock().now();
            world.set_image("podinfo", "podinfo:6.0.1");
            world.wait_for_phase("podinfo", "Succeeded").await;
            eprintln!("{start} {}", world.count_events("podinfo", "Halt"));
        });
    }
}
