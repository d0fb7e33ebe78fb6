//! Functions, versions, settings.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::world::{START, World, keyed, new_execution, version};
use crate::model::{
    Backoff, Code, Digest, ExecutionMode, Exposure, FunctionName, FunctionSettings, RecordMode,
    SecretUse, Shape, Version, VersionNumber, VersionSpec,
};
use crate::store::{Accepted, Error, Filter};

fn name(text: &str) -> FunctionName {
    text.parse().expect("a name")
}

pub(crate) async fn keeps_functions_with_versions_and_settings(mut world: World) {
    let made = world.function("alpha").await;
    assert_eq!(made.active, VersionNumber(1));
    let faster = FunctionSettings {
        concurrency: 9,
        queue_size: 7,
        rate_per_second: Some(5),
        burst: Some(6),
        hosts: ["shop.example".parse().unwrap()].into(),
    };
    world
        .add_version(made.id, &faster, version(2))
        .await
        .unwrap();
    let now = START.plus_ms(99);
    world
        .set_function(made.id, &faster, VersionNumber(1), now)
        .await
        .unwrap();
    world.function("beta").await;

    for _ in 0..2 {
        let functions = world.functions().await.unwrap();
        assert_eq!(functions.len(), 2);
        let alpha = functions.iter().find(|f| f.id == made.id).unwrap();
        assert_eq!(alpha.name, name("alpha"));
        assert_eq!(alpha.settings, faster);
        assert_eq!(alpha.active, VersionNumber(1));
        assert_eq!(alpha.versions, [version(1), version(2)]);
        assert_eq!(alpha.created_at, version(1).created_at);
        assert_eq!(alpha.updated_at, now);
        world.reopen().await;
    }
}

/// A spec that has no default left.
fn unusual_spec() -> VersionSpec {
    let pairs = |text: &str| BTreeMap::from([(text.to_owned(), "{\"a\": [1]}".to_owned())]);
    let everywhere = Exposure::Placeholder {
        hosts: vec!["*".parse().unwrap()],
    };
    let secret = |exposure| SecretUse {
        secret: "a-secret".parse().unwrap(),
        exposure,
    };
    VersionSpec {
        timeout_ms: 1,
        cpu_ms: Some(2),
        memory_mb: 3,
        output_bytes_max: 4,
        log_bytes_max: 5,
        max_retries: 6,
        retry_backoff: Backoff {
            base_delay_ms: 7,
            max_delay_ms: 8,
        },
        max_requeues: 9,
        max_age_ms: 10,
        args: vec!["--größe".to_owned()],
        env: pairs("A"),
        config: pairs("b"),
        allow_hosts: Some(vec![
            "http://*:81".parse().unwrap(),
            "[::1]".parse().unwrap(),
        ]),
        secrets: [Exposure::Config, Exposure::Env, everywhere]
            .into_iter()
            .enumerate()
            .map(|(number, exposure)| (format!("KEY_{number}"), secret(exposure)))
            .collect(),
        invoke_path: Some("/c?d".to_owned()),
        reuse: Some(crate::model::Reuse {
            max_calls: 3,
            max_concurrent: 64,
            idle_ms: 1000,
        }),
        record: RecordMode::Summary,
        execution_mode: Some(ExecutionMode::Deployment),
        image: Some("an image".to_owned()),
        endpoint_url: Some("http://127.0.0.1:1/".to_owned()),
        ignored: pairs("resources"),
    }
}

pub(crate) async fn keeps_every_field_of_a_version(mut world: World) {
    let spec = unusual_spec();
    let shapes = [
        Shape::Handler,
        Shape::Http02,
        Shape::Http03,
        Shape::Command02,
        Shape::Command03,
        Shape::CoreCommand,
    ];
    let mut codes: Vec<Code> = shapes
        .into_iter()
        .map(|shape| Code::Wasm {
            digest: Digest::from_bytes([0xa5; 32]),
            shape,
            size: 11,
        })
        .collect();
    codes.push(Code::Echo);
    codes.push(Code::Endpoint {
        url: "http://127.0.0.1:1/".into(),
    });
    let function = world.function("full").await;
    let mut expected = vec![version(1)];
    for (number, code) in (2..).zip(codes) {
        let version = Arc::new(Version {
            number: VersionNumber(number),
            code,
            spec: spec.clone(),
            created_at: START,
        });
        let added = world.add_version(function.id, &function.settings, Arc::clone(&version));
        added.await.unwrap();
        expected.push(version);
    }
    world.reopen().await;
    assert_eq!(world.functions().await.unwrap()[0].versions, expected);
}

pub(crate) async fn refuses_a_taken_name(world: World) {
    let first = world.function("alpha").await;
    let second = world.create_function(&first.name, &first.settings, version(1));
    assert!(matches!(second.await, Err(Error::NameTaken)));
    // Another case is another name.
    world.function("Alpha").await;
    assert_eq!(world.functions().await.unwrap().len(), 2);
}

pub(crate) async fn refuses_changes_of_what_is_not_there(world: World) {
    let function = world.function("alpha").await;
    let settings = &function.settings;
    let no_version = world.set_function(function.id, settings, VersionNumber(2), START);
    assert!(matches!(no_version.await, Err(Error::NoSuchFunction)));
    world.delete_function(function.id).await.unwrap();
    let again = world.delete_function(function.id).await;
    assert!(matches!(again, Err(Error::NoSuchFunction)));
    let added = world.add_version(function.id, settings, version(2)).await;
    assert!(matches!(added, Err(Error::NoSuchFunction)));
    let set = world.set_function(function.id, settings, VersionNumber(1), START);
    assert!(matches!(set.await, Err(Error::NoSuchFunction)));
    assert_eq!(world.functions().await.unwrap(), []);
}

pub(crate) async fn refuses_a_version_number_twice(world: World) {
    let function = world.function("alpha").await;
    let settings = FunctionSettings {
        concurrency: 99,
        ..FunctionSettings::default()
    };
    let twice = world.add_version(function.id, &settings, version(1)).await;
    assert!(matches!(twice, Err(Error::Failed(_))), "{twice:?}");
    assert_eq!(world.functions().await.unwrap(), [function]);
}

pub(crate) async fn makes_another_function_of_a_name_used_again(mut world: World) {
    let old = world.function("alpha").await;
    let first = keyed(new_execution(&old, 0), "key", 1_000_000);
    world.accept(first.clone()).await.unwrap();
    world.delete_function(old.id).await.unwrap();

    let new = world.function("alpha").await;
    assert_ne!(new.id, old.id);
    assert_eq!(new.versions.len(), 1);
    let late = world.accept(new_execution(&old, 1)).await;
    assert!(matches!(late, Err(Error::NoSuchFunction)), "{late:?}");
    let same_key = keyed(new_execution(&new, 2), "key", 1_000_000);
    assert_eq!(world.accept(same_key).await.unwrap(), Accepted::New);

    world.reopen().await;
    let of_name = Filter {
        function: Some(name("alpha")),
        ..Filter::default()
    };
    let ids: Vec<_> = world.executions(&of_name, 10).await.unwrap();
    let ids: Vec<_> = ids.iter().map(|e| e.function_id).collect();
    assert_eq!(ids, [new.id, old.id]);
}
