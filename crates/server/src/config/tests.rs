//! What the configuration accepts, refuses, and derives.

use super::*;

fn file(initial_cluster: &str) -> ConfigFile {
    ConfigFile {
        name: Some("s1".to_owned()),
        data_dir: Some("/var/lib/quorate".into()),
        initial_cluster: Some(initial_cluster.to_owned()),
        ..ConfigFile::default()
    }
}

#[test]
fn ids_follow_the_sorted_names_and_the_listing_order_does_not_matter() {
    let a = file("s2=b:2380,s1=a:2380,s3=c").resolve().unwrap();
    let b = file("s3=c:2380,s2=b:2380,s1=a:2380").resolve().unwrap();
    assert_eq!(a.initial_cluster, b.initial_cluster);
    assert_eq!(a.own_id(), ReplicaId(1));
    assert_eq!(a.initial_cluster[2].id, ReplicaId(3));
    assert_eq!(a.initial_cluster[2].peer_address, "c:2380");
    assert_eq!(a.initial_cluster[2].client_address, "c:2379");
    assert_eq!(a.cluster_id(), b.cluster_id());
}

#[test]
fn the_cluster_id_depends_on_members_and_token_and_never_changes() {
    let base = file("s1=a:2380,s2=b:2380,s3=c:2380").resolve().unwrap();
    let other_member = file("s1=a:2380,s2=b:2380,s3=d:2380").resolve().unwrap();
    let mut other_token = base.clone();
    other_token.cluster_token = "second".to_owned();
    assert_ne!(base.cluster_id(), other_member.cluster_id());
    assert_ne!(base.cluster_id(), other_token.cluster_id());
    // Golden: data directories hold this value.
    assert_eq!(base.cluster_id().to_string(), "6ed9a2218dab6773");
}

#[test]
fn explicit_ids_and_client_addresses_are_taken() {
    let config = file("s1#7=a:1/a:2,s2#3=[::1]:5/x").resolve().unwrap();
    assert_eq!(config.own_id(), ReplicaId(7));
    assert_eq!(config.own().client_address, "a:2");
    assert_eq!(config.initial_cluster[1].peer_address, "[::1]:5");
    assert_eq!(config.initial_cluster[1].client_address, "x:2379");
    assert_eq!(config.initial_configuration().members.len(), 2);
}

#[test]
fn each_refusal_names_its_field() {
    let check = |file: ConfigFile, needle: &str| {
        let error = file.resolve().unwrap_err().to_string();
        assert!(error.contains(needle), "{error:?} does not name {needle:?}");
    };
    check(ConfigFile::default(), "`name`");
    check(file(""), "`initial_cluster`");
    check(file("s1"), "`initial_cluster`");
    check(file("s1=a:0"), "`initial_cluster`");
    check(file("s1=::1:80"), "`initial_cluster`");
    check(file("s1=a,s1=b"), "names must differ");
    check(file("s1=a,s2=a"), "addresses must differ");
    check(file("s1#1=a,s2=b"), "every member or to none");
    check(file("s1#0=a"), "ids start at 1");
    check(file("s2=a"), "`name` is `s1`");
    check(file("s1=a:2379/a:2380"), "NAME=PEER/CLIENT, in this order");
    check(
        ConfigFile {
            id: Some(2),
            ..file("s1=a")
        },
        "`id` is `2`",
    );
    check(
        ConfigFile {
            client_listen: Some("nowhere".into()),
            ..file("s1=a")
        },
        "`client_listen`",
    );
    check(
        ConfigFile {
            client_listen: Some("0.0.0.0:2379".into()),
            ..file("s1=a")
        },
        "insecure = true",
    );
    check(
        ConfigFile {
            peer_listen: Some("0.0.0.0:2380".into()),
            ..file("s1=a")
        },
        "peer_tls",
    );
    let timing = |h, d, j| TimingFile {
        heartbeat_ms: Some(h),
        detection_timeout_ms: Some(d),
        election_jitter_ms: Some(j),
    };
    check(
        ConfigFile {
            timing: timing(0, 500, 250),
            ..file("s1=a")
        },
        "timing.heartbeat_ms",
    );
    check(
        ConfigFile {
            timing: timing(50, 149, 50),
            ..file("s1=a")
        },
        "timing.detection_timeout_ms",
    );
    check(
        ConfigFile {
            timing: timing(50, 500, 0),
            ..file("s1=a")
        },
        "timing.election_jitter_ms",
    );
    check(
        ConfigFile {
            clock_drift_ppm: Some(0),
            ..file("s1=a")
        },
        "clock_drift_ppm",
    );
    let tls = TlsFile {
        cert: Some("c".into()),
        key: Some("k".into()),
        ca: None,
    };
    check(
        ConfigFile {
            peer_tls: tls.clone(),
            ..file("s1=a")
        },
        "peer_tls.ca",
    );
    check(
        ConfigFile {
            client_tls: TlsFile { key: None, ..tls },
            ..file("s1=a")
        },
        "client_tls",
    );
}

#[test]
fn plaintext_off_loopback_needs_the_insecure_flag() {
    let open = ConfigFile {
        client_listen: Some("0.0.0.0:1".into()),
        peer_listen: Some("[::]:2".into()),
        ..file("s1=a")
    };
    assert!(
        ConfigFile {
            insecure: Some(true),
            ..open
        }
        .resolve()
        .is_ok()
    );
    assert!(
        ConfigFile {
            client_listen: Some("[::1]:1".into()),
            ..file("s1=a")
        }
        .resolve()
        .is_ok()
    );
}

#[test]
fn a_file_is_read_overlaid_and_refuses_unknown_fields() {
    let text =
        "name = 's1'\ndata_dir = '/d'\ninitial_cluster = 's1=a'\n[timing]\nheartbeat_ms = 20\n";
    let file: ConfigFile = toml::from_str(text).unwrap();
    let over = ConfigFile {
        data_dir: Some("/e".into()),
        ..ConfigFile::default()
    };
    let config = file.overlaid_by(over).resolve().unwrap();
    assert_eq!(config.data_dir, PathBuf::from("/e"));
    assert_eq!(config.timing.heartbeat_interval, Duration::from_millis(20));
    let error = toml::from_str::<ConfigFile>("nmae = 's1'")
        .unwrap_err()
        .to_string();
    assert!(error.contains("nmae"), "{error}");
}
