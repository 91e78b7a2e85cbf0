//! Copying a recording with some of its events.

mod every;

use colinux_tracer::{Compared, Event, Options, Reader, cut};

fn options() -> Options {
    Options {
        overwrite: true,
        sync: false,
        ..Options::default()
    }
}

#[test]
fn a_copy_keeps_the_ground_state_and_the_events_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.clt");
    every::write(&path);
    let reader = Reader::open(&path).unwrap();
    let all: Vec<_> = reader.events().map(Result::unwrap).collect();
    for (from, until) in [
        (0, u64::MAX),
        (0, 0),
        (1100, 1500),
        (1225, 1225),
        (9000, u64::MAX),
    ] {
        let to = dir.path().join("b.clt");
        let summary = cut(&reader, &to, from..=until, options()).unwrap();
        let copy = Reader::open(&to).unwrap();
        assert!(copy.is_complete());
        copy.check().unwrap();
        assert_eq!(summary.events, copy.event_count());
        let ground = |reader: &Reader| reader.compared_digest(Compared::GroundState).unwrap();
        assert_eq!(reader.manifest().unwrap(), copy.manifest().unwrap());
        assert_eq!(reader.inputs().unwrap(), copy.inputs().unwrap());
        assert_eq!(copy.boot_file("initrd").unwrap(), [7; 5000]);
        assert_eq!(
            copy.checkpoint(&copy.checkpoints().unwrap()[0]).unwrap(),
            b"state"
        );
        assert_eq!(copy.notes().unwrap(), reader.notes().unwrap());
        let wanted: Vec<_> = all
            .iter()
            .filter(|row| (from..=until).contains(&row.tick))
            .collect();
        let mut kept: Vec<_> = copy.events().map(Result::unwrap).collect();
        let mut lost = 0;
        kept.retain(|row| match row.event {
            // The recording itself holds a `Lost` of three.
            Event::Lost { count, .. } if count != 3 => {
                lost += count;
                false
            }
            _ => true,
        });
        assert_eq!(kept.len(), wanted.len(), "{from}..={until}");
        assert!(
            kept.iter()
                .zip(&wanted)
                .all(|(a, b)| (a.tick, &a.event) == (b.tick, &b.event))
        );
        assert_eq!(lost + kept.len() as u64, all.len() as u64);
        if from == 0 && until == u64::MAX {
            assert_eq!(ground(&reader), ground(&copy));
        }
    }
}
