//! What must hold of every parser of foreign bytes, by the parser's name. Compiled for tests and for fuzzing only.
//!
//! Each is given bytes and panics if its property does not hold. `cargo xtask fuzz` looks for such bytes as long as it is
//! told to, from the seeds in `tests/fuzz/corpus`; the tests here look for as long as tests may take. What was found once
//! becomes a seed.

pub use crate::{
    allocator::import::properties::host_local,
    capture::properties::{frame, kernel_log, record},
    cni::properties::cni,
    evidence::properties::incident_record,
    http::properties::api,
    netlink::properties::netlink,
    replay::properties::capture_file,
    sandbox::properties::cgroup,
};

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, fs, path::Path};

    use proptest::{prelude::*, sample::Index, test_runner::TestRunner};

    use super::*;

    type Property = fn(&[u8]);

    const PROPERTIES: [(&str, Property); 10] = [
        ("api", api),
        ("capture_file", capture_file),
        ("cgroup", cgroup),
        ("cni", cni),
        ("frame", frame),
        ("host_local", host_local),
        ("incident_record", incident_record),
        ("kernel_log", kernel_log),
        ("netlink", netlink),
        ("record", record),
    ];

    /// The seeds of each target.
    fn corpus() -> BTreeMap<String, Vec<Vec<u8>>> {
        let list = |path: &Path| {
            let entries = fs::read_dir(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
            paths.sort();
            paths
        };
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fuzz/corpus");
        let seeds = |path: &Path| list(path).iter().map(|seed| fs::read(seed).unwrap()).collect();
        let name = |path: &Path| path.file_name().unwrap().to_str().unwrap().to_owned();
        list(&folder).iter().map(|path| (name(path), seeds(path))).collect()
    }

    /// Any bytes; and seeds that end early, are put together, or have bytes changed.
    fn bytes(seeds: Vec<Vec<u8>>) -> impl Strategy<Value = Vec<u8>> {
        let seed = prop::sample::select(seeds);
        let changes = prop::collection::vec((any::<Index>(), any::<u8>()), 0..6);
        let spoilt = (seed.clone(), seed, any::<[Index; 2]>(), changes).prop_map(|(one, two, cuts, changes)| {
            let mut bytes = [&one[..cuts[0].index(one.len() + 1)], &two[cuts[1].index(two.len() + 1)..]].concat();
            changes.into_iter().filter(|_| !bytes.is_empty()).collect::<Vec<_>>().into_iter().for_each(|(at, byte)| {
                *at.get_mut(&mut bytes) = byte;
            });
            bytes
        });
        prop_oneof![1 => prop::collection::vec(any::<u8>(), 0..300), 4 => spoilt]
    }

    #[test]
    fn every_property_has_seeds_and_holds_of_them() {
        let corpus = corpus();
        assert_eq!(corpus.keys().map(String::as_str).collect::<Vec<_>>(), PROPERTIES.map(|(name, _)| name));
        for (name, property) in PROPERTIES {
            assert!(corpus[name].len() >= 3, "{name}");
            corpus[name].iter().for_each(|seed| property(seed));
        }
    }

    #[test]
    fn every_property_holds_of_any_bytes() {
        for (name, property) in PROPERTIES {
            let run = TestRunner::default().run(&bytes(corpus()[name].clone()), |bytes| {
                property(&bytes);
                Ok(())
            });
            run.unwrap_or_else(|error| panic!("{name}: {error}"));
        }
    }
}
