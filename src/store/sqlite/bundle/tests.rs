//! What goes into a bundle comes out of it; what is no bundle is refused.

use proptest::prelude::*;

use super::*;
use crate::store::conformance::world::{attempt, failure, output};

fn request(body: &str) -> Request {
    Request {
        input: Input {
            content_type: ContentType("text/plain".into()),
            body: Bytes::copy_from_slice(body.as_bytes()),
        },
        metadata: [("tenant".to_owned(), "größe".to_owned())].into(),
        trace_id: None,
        traceparent: Some("00-1".into()),
        idempotency_key: Some("key".parse().unwrap()),
        parent: None,
    }
}

fn id(number: u8) -> ExecutionId {
    ExecutionId::from_bytes([number; 16])
}

/// Three calls: with everything, with nothing (not even an input), with two runs.
fn filled() -> (Bundle, [Request; 3]) {
    let requests = [request("first"), request(""), request("third")];
    let mut runs = [attempt(Fence(7)), attempt(Fence(9))];
    runs[1].failure = Some(failure());
    runs[1].outcome = "retry";
    (runs[1].init_ms, runs[1].cpu_us) = (None, None);
    let mut bundle = Bundle::default();
    bundle.start_at(40);
    let output = output();
    for (number, (request, (output, runs))) in (1..).zip(requests.iter().zip([
        (Some(&output), &runs[..1]),
        (None, &runs[..0]),
        (Some(&output), &runs[..]),
    ])) {
        let call = Call {
            request: (number != 2).then_some(request),
            output,
            attempts: runs,
        };
        bundle
            .add(
                id(number),
                Timestamp(100 - i64::from(number)),
                &call.part(0).unwrap(),
            )
            .unwrap();
    }
    (bundle, requests)
}

#[test]
fn every_call_is_found_by_its_number() {
    let (mut bundle, requests) = filled();
    assert_eq!(
        (bundle.first_seq(), bundle.newest_end()),
        (40, Timestamp(99))
    );
    assert_eq!(ids(bundle.ids()).unwrap(), [id(1), id(2), id(3)]);
    let body = bundle.body().unwrap().to_vec();
    for (seq, request) in (40..).zip(&requests) {
        let kept = find(body.clone(), seq).unwrap();
        assert_eq!(kept.request.as_ref(), (seq != 41).then_some(request));
        assert_eq!(kept.output, (seq != 41).then(output));
        let fences: Vec<_> = kept.attempts.iter().map(|run| run.fence.0).collect();
        assert_eq!(
            fences,
            [&[7][..], &[], &[7, 9]][usize::try_from(seq - 40).unwrap()]
        );
    }
    let last = find(body.clone(), 42).unwrap().attempts;
    assert_eq!(last[0], attempt(Fence(7)));
    assert_eq!(last[1].failure, Some(failure()));
    for other in [39, 43, i64::MIN, i64::MAX] {
        assert!(find(body.clone(), other).is_err(), "{other}");
    }
}

#[test]
fn a_bundle_is_full_by_bytes_or_by_calls() {
    let large = request(&"x".repeat(BYTES_ENOUGH));
    let small = request("");
    let fills_after = |request: &Request| {
        let mut bundle = Bundle::default();
        bundle.start_at(0);
        let call = Call {
            request: Some(request),
            output: None,
            attempts: &[],
        };
        let mut count = 0;
        while !bundle.is_full() {
            bundle
                .add(id(0), Timestamp(0), &call.part(0).unwrap())
                .unwrap();
            count += 1;
        }
        count
    };
    assert_eq!(fills_after(&large), 1);
    assert_eq!(fills_after(&small), CALLS_MAX);
}

#[test]
fn the_next_bundle_in_the_same_memory_has_nothing_of_the_one_before() {
    let part = |request: &Request| {
        let call = Call {
            request: Some(request),
            output: None,
            attempts: &[],
        };
        call.part(0).unwrap()
    };
    let large = part(&request(&"x".repeat(2 * BUFFER_BYTES_KEPT)));
    let small = part(&request("next"));
    let (mut bundle, _) = filled();
    for _ in 0..2 {
        bundle.add(id(4), Timestamp(200), &large).unwrap();
        bundle.start_at(7);
        assert!(bundle.is_empty());
        bundle.add(id(5), Timestamp(1), &small).unwrap();
        assert_eq!((bundle.first_seq(), bundle.newest_end()), (7, Timestamp(1)));
        assert_eq!(ids(bundle.ids()).unwrap(), [id(5)]);
        let body = bundle.body().unwrap().to_vec();
        assert_eq!(body.len(), head_bytes(1) + small.len());
        assert_eq!(find(body, 7).unwrap().request, Some(request("next")));
    }
}

#[test]
fn what_is_cut_short_or_longer_is_refused() {
    let body = filled().0.body().unwrap().to_vec();
    for end in 0..body.len() {
        assert!(find(body[..end].to_vec(), 42).is_err(), "{end}");
    }
    let mut of_the_future = body;
    of_the_future[0] = FORMAT_PACKED + 1;
    assert!(find(of_the_future, 40).is_err());
    assert!(ids(&[0; 17]).is_err());
}

/// A bundle of as many calls with this body each as it takes.
fn full_of(body: impl Fn(usize) -> String) -> (Vec<u8>, Vec<Request>) {
    let mut bundle = Bundle::default();
    bundle.start_at(7);
    let mut requests = Vec::new();
    while !bundle.is_full() {
        let request = request(&body(requests.len()));
        let call = Call {
            request: Some(&request),
            output: None,
            attempts: &[attempt(Fence(7))],
        };
        let part = call.part(0).unwrap();
        bundle.add(id(1), Timestamp(0), &part).unwrap();
        requests.push(request);
    }
    (bundle.body().unwrap().to_vec(), requests)
}

#[test]
fn calls_that_resemble_each_other_are_packed_and_found() {
    let order =
        |number| format!(r#"{{"order":{number},"article":"nozzle, bronze, 12 mm"}}"#).repeat(12);
    let (body, requests) = full_of(order);
    assert_eq!(body[0], FORMAT_PACKED);
    assert!(body.len() < BYTES_ENOUGH / 8, "{}", body.len());
    for (seq, request) in (7..).zip(&requests) {
        let kept = find(body.clone(), seq).unwrap();
        assert_eq!(kept.request.as_ref(), Some(request));
        assert_eq!(kept.attempts, [attempt(Fence(7))]);
    }
}

#[test]
fn what_does_not_become_smaller_stays_as_it_is() {
    let noise = |number: usize| {
        let mut dice = blake3::Hasher::new()
            .update(&number.to_le_bytes())
            .finalize_xof();
        let mut bytes = [0; 1500];
        dice.fill(&mut bytes);
        base64::Engine::encode(&base64::engine::general_purpose::STANDARD, bytes)
    };
    let (body, requests) = full_of(noise);
    assert_eq!(body[0], FORMAT_PLAIN);
    let kept = find(body, 8).unwrap();
    assert_eq!(kept.request.as_ref(), Some(&requests[1]));
}

#[test]
fn a_large_bundle_between_small_ones_takes_nothing_of_them() {
    let mut bundle = Bundle::default();
    for size in [2000, 40 * BYTES_ENOUGH, 2000] {
        bundle.start_at(7);
        let request = request(&"ab".repeat(size));
        let call = Call {
            request: Some(&request),
            output: None,
            attempts: &[],
        };
        bundle
            .add(id(1), Timestamp(0), &call.part(0).unwrap())
            .unwrap();
        let body = bundle.body().unwrap().to_vec();
        assert_eq!(body[0], FORMAT_PACKED);
        assert_eq!(find(body, 7).unwrap().request, Some(request));
    }
}

#[test]
fn packed_bytes_that_are_damaged_are_refused() {
    let (body, requests) = full_of(|number| format!("{number}, and the same for all").repeat(9));
    let last = i64::try_from(requests.len()).unwrap() + 6;
    for end in (0..body.len()).step_by(7) {
        assert!(find(body[..end].to_vec(), last).is_err(), "{end}");
    }
    // It claims to have been longer by far: no memory is taken for that.
    let ends = 1 + 8 + 4;
    let mut bloated = body;
    let end_of_last = ends + 4 * (requests.len() - 1);
    bloated[end_of_last..end_of_last + 4].copy_from_slice(&u32::MAX.to_le_bytes());
    assert!(find(bloated, last).is_err());
}

proptest! {
    #[test]
    fn no_bytes_make_a_panic(mut body in prop::collection::vec(any::<u8>(), 0..300), seq in 38_i64..46) {
        let _ = find(body.clone(), seq);
        // The same damage inside what begins like a bundle.
        let good = filled().0.body().unwrap().to_vec();
        body.truncate(good.len());
        let at = good.len() - body.len();
        let mut damaged = good;
        damaged[at..].copy_from_slice(&body);
        let _ = find(damaged.clone(), seq);
        damaged[0] = FORMAT_PACKED;
        let _ = find(damaged, seq);
    }
}
