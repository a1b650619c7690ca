//! etcd's v3 API: its messages, clients and servers, as generated.
//!
//! Unlike `quorate.v1`, these types are used as they are by servers, clients and tools: etcd's messages are their own contract, and a
//! second set of plain types would only repeat them (ADR etcd-messages-as-contract). Deliberately absent: what they mean.

/// Keys and their changes.
pub mod mvccpb {
    #![expect(missing_docs, clippy::all, reason = "generated from proto/")]
    tonic::include_proto!("mvccpb");
}

/// Users, roles and permissions.
pub mod authpb {
    #![expect(missing_docs, clippy::all, reason = "generated from proto/")]
    tonic::include_proto!("authpb");
}

/// Key-value, watch, lease, cluster, maintenance and auth services.
pub mod etcdserverpb {
    #![expect(
        missing_docs,
        unused_qualifications,
        clippy::all,
        clippy::allow_attributes,
        reason = "generated from proto/"
    )]
    tonic::include_proto!("etcdserverpb");
}

/// The election service.
pub mod v3electionpb {
    #![expect(
        missing_docs,
        unused_qualifications,
        clippy::allow_attributes,
        reason = "generated from proto/"
    )]
    tonic::include_proto!("v3electionpb");
}

/// The lock service.
pub mod v3lockpb {
    #![expect(
        missing_docs,
        unused_qualifications,
        clippy::allow_attributes,
        reason = "generated from proto/"
    )]
    tonic::include_proto!("v3lockpb");
}

/// Describes all of the above (a `google.protobuf.FileDescriptorSet`), for the JSON gateway.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/etcd.fds"));

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;

    #[test]
    fn requests_are_read_as_a_client_of_etcd_writes_them() {
        // `etcdctl put a b --lease=7 --prev-kv`, as its request was recorded.
        let put = [0x0a, 1, b'a', 0x12, 1, b'b', 0x18, 7, 0x20, 1];
        let put = etcdserverpb::PutRequest::decode(put.as_slice()).unwrap();
        let read = (&put.key[..], &put.value[..], put.lease, put.prev_kv);
        assert_eq!(read, (b"a".as_slice(), b"b".as_slice(), 7, true));
        // The one field far from its siblings.
        let compare = etcdserverpb::Compare {
            range_end: "z".into(),
            ..Default::default()
        };
        assert_eq!(compare.encode_to_vec(), [0x82, 0x04, 1, b'z']);
    }

    #[test]
    fn descriptors_name_every_service() {
        let text = String::from_utf8_lossy(FILE_DESCRIPTOR_SET);
        for service in [
            "KV",
            "Watch",
            "Lease",
            "Cluster",
            "Maintenance",
            "Auth",
            "Election",
            "Lock",
        ] {
            assert!(text.contains(service), "{service} is missing");
        }
    }
}
