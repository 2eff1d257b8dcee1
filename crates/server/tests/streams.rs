//! Live sessions: what a stream tells, and that it tells everything once, wherever it is cut and taken up again.

#[macro_use]
mod support;

use std::time::{Duration, Instant};

use agentkeep::{
    Store, TenantStore,
    conformance::support::{said, session},
    core::{Delta, Finish, MessageRole, NewMessage, SessionId, Timestamp},
};
use agentkeep_server::Options;
use reqwest::Method;
use serde_json::json;
use support::{
    Place, Service, serve, serve_with,
    sse::{Reader, Told, assert_complete},
};

on_each_engine! {
    appended_and_streamed_messages_are_told_in_order,
    a_stream_goes_on_behind_every_event_at_any_server,
    many_writers_are_told_once_to_readers_that_come_and_go,
    a_stream_without_a_place_tells_what_happens_from_now_on,
    what_is_not_kept_any_more_is_told,
    a_client_that_takes_nothing_is_cut_off,
    an_idle_stream_is_kept_alive_past_the_request_timeout,
    the_end_of_a_session_is_the_end_of_its_streams,
    two_hundred_clients_share_a_session,
    a_thousand_clients_come_and_go,
    changed_messages_are_told,
    deleted_messages_are_told_and_hold_nobody_up,
    a_server_that_stops_ends_its_streams,
}

/// A client that begins behind an event; with what happens from now on when it is `None`.
async fn listen(service: &Service, session: SessionId, from: Option<&str>) -> Reader {
    let request = service.request(Method::GET, &format!("sessions/{session}/events"));
    Reader::open(request.header("accept-encoding", "gzip, zstd"), from).await.expect("an answer")
}

async fn say(tenant: &TenantStore, session: SessionId, text: impl Into<String>) -> i64 {
    let message = tenant.messages().append(session, said(text)).await.expect("appended");
    tenant.session_changed(session);
    message.seq
}

async fn stream_in(tenant: &TenantStore, session: SessionId, deltas: usize) {
    let new = NewMessage::empty(MessageRole::Assistant);
    let started = tenant.messages().start(session, new, None).await.expect("started");
    for number in 0..deltas {
        let delta = Delta::text(format!("{number} "));
        tenant.messages().delta(session, started.id, &delta).await.expect("grown");
    }
    tenant.messages().finish(session, started.id, Finish::default()).await.expect("finished");
}

/// Another server on the same database, with the same keys.
async fn another(place: &Place, service: &Service) -> (Service, Store) {
    let store = Store::open_with(place.store.config().clone()).await.expect("the database opens");
    let mut other = serve(&Place::new(store.clone())).await;
    other.tenant = store.tenant(service.tenant.id());
    other.key = service.key.clone();
    (other, store)
}

async fn appended_and_streamed_messages_are_told_in_order(place: &Place) {
    let service = serve(place).await;
    let made = session(&service.tenant).await.id;
    let mut reader = listen(&service, made, None).await;
    let messages = format!("sessions/{made}/messages");
    let body = "{\"role\": \"user\",\n \"content\": \"a\\nb\", \"metadata\": {\n\r\"n\": 1.10}}";
    let request = service.request(Method::POST, &messages).header("content-type", "application/json").body(body);
    let first = support::answer(request).await.json(201);
    let told = reader.next().await.expect("the message");
    assert_eq!((told.event.as_str(), told.id.as_str(), &told.data), ("message.created", "1.0", &first));

    let begun = service.post(&format!("{messages}/stream"), json!({"role": "assistant"})).await.json(201);
    let id = begun["id"].as_str().expect("an id");
    let told = reader.next().await.expect("the beginning");
    assert_eq!((told.event.as_str(), told.id.as_str(), &told.data["data"]), ("message.started", "2.1", &begun));
    for (number, delta) in [(2, json!({"content": "x"})), (3, json!({"thinking": "y"}))] {
        service.post(&format!("{messages}/{id}/deltas"), delta.clone()).await.json(201);
        let told = reader.next().await.expect("a delta");
        assert_eq!((told.event.as_str(), &told.data["data"], &told.data["seq"]), ("message.delta", &delta, &json!(2)));
        assert_eq!((&told.data["number"], &told.data["message_id"]), (&json!(number), &begun["id"]));
    }
    service.post(&messages, json!({"role": "user", "content": "meanwhile"})).await.json(201);
    assert_eq!(reader.next().await.expect("a message").id, "3.3");
    let ended = service.post(&format!("{messages}/{id}/finish"), json!({})).await.json(200);
    let told = reader.next().await.expect("the end");
    assert_eq!((told.event.as_str(), told.id.as_str(), &told.data["data"]), ("message.completed", "3.4", &ended));

    // From the beginning, by the query.
    let path = format!("sessions/{made}/events?after=0.0");
    let mut reader = Reader::open(service.request(Method::GET, &path), None).await.expect("an answer");
    assert_complete(&reader.take_some(6).await, &[1, 3], 4);
    for (name, value) in [("last-event-id", "x"), ("last-event-id", "1.-1")] {
        let request = service.request(Method::GET, &format!("sessions/{made}/events")).header(name, value);
        assert_eq!(support::answer(request).await.problem(400).1, "Last-Event-ID");
    }
    assert_eq!(service.get(&format!("sessions/{made}/events?after=1")).await.problem(400).1, "after");
    drop(reader);
    service.stop().await;
}

async fn a_stream_goes_on_behind_every_event_at_any_server(place: &Place) {
    let service = serve(place).await;
    let (other, _store) = another(place, &service).await;
    let made = session(&service.tenant).await.id;
    for round in 0..4 {
        say(&service.tenant, made, format!("{round}")).await;
        stream_in(&service.tenant, made, 5).await;
    }
    say(&service.tenant, made, "last").await;
    let (whole, events) = ([1, 3, 5, 7, 9], 4 * 7);
    let all = listen(&service, made, Some("0.0")).await.take_some(whole.len() + 28).await;
    assert_complete(&all, &whole, events);
    for count in 0..all.len() {
        let from = if count == 0 { "0.0" } else { all[count - 1].id.as_str() };
        let server = if count % 2 == 0 { &other } else { &service };
        let mut joined = all[..count].to_vec();
        joined.extend(listen(server, made, Some(from)).await.take_some(all.len() - count).await);
        assert_complete(&joined, &whole, events);
        assert_eq!(joined.last().expect("told").id, all.last().expect("told").id);
    }
    other.stop().await;
    service.stop().await;
}

async fn many_writers_are_told_once_to_readers_that_come_and_go(place: &Place) {
    const WRITERS: usize = 20;
    const TURNS: usize = 6;
    let service = serve(place).await;
    let (other, _store) = another(place, &service).await;
    let made = session(&service.tenant).await.id;
    // Each turn of a writer of an odd number is streamed.
    let (streamed, plain) = (WRITERS / 2 * TURNS, WRITERS / 2 * TURNS);
    let (events, items) = ((streamed * 5) as i64, streamed * 5 + plain);
    let writers = (0..WRITERS).map(|writer| {
        let tenant = if writer % 4 < 2 { service.tenant.clone() } else { other.tenant.clone() };
        tokio::spawn(async move {
            for turn in 0..TURNS {
                match writer % 2 {
                    0 => drop(say(&tenant, made, format!("{writer}.{turn}")).await),
                    _ => stream_in(&tenant, made, 3).await,
                }
            }
        })
    });
    let writers: Vec<_> = writers.collect();
    let readers = (0..6_usize).map(|number| {
        let (service, other) = (&service, &other);
        async move {
            let mut told: Vec<Told> = Vec::new();
            let mut chance = number * 7919 + 13;
            while told.len() < items {
                chance = (chance * 1_103_515_245 + 12_345) % (1 << 31);
                let server = if (chance >> 8) % 2 == 0 { service } else { other };
                let from = told.last().map_or("0.0", |told| told.id.as_str()).to_owned();
                let mut reader = listen(server, made, Some(&from)).await;
                // The first one stays; the others go after a while.
                let some = if number == 0 { items } else { 1 + (chance >> 12) % 60 };
                told.extend(reader.take_some(some.min(items - told.len())).await);
            }
            told
        }
    });
    let told = futures_util::future::join_all(readers).await;
    for writer in writers {
        writer.await.expect("no panic");
    }
    let messages = service.tenant.messages().recent(made, 1000).await.expect("read");
    let begun = service.tenant.session_events().streamed(made, 1, i64::MAX).await.expect("read");
    let whole: Vec<i64> = messages.iter().map(|message| message.seq).filter(|seq| !begun.contains(seq)).collect();
    assert_eq!((messages.len(), whole.len()), (plain + streamed, plain));
    for told in told {
        assert_complete(&told, &whole, events);
    }
    other.stop().await;
    service.stop().await;
}

async fn a_stream_without_a_place_tells_what_happens_from_now_on(place: &Place) {
    let service = serve(place).await;
    let made = session(&service.tenant).await.id;
    say(&service.tenant, made, "before").await;
    stream_in(&service.tenant, made, 2).await;
    let mut reader = listen(&service, made, None).await;
    // Where it begins is told before anything happens.
    assert!(reader.read().await, "a beginning");
    assert_eq!(reader.id(), "2.4");
    say(&service.tenant, made, "now").await;
    assert_eq!(reader.next().await.expect("a message").place(), ('m', 3));
    // A change that nobody told of is found all the same.
    let quiet = service.tenant.messages().append(made, said("quiet")).await.expect("appended");
    assert_eq!(reader.next().await.expect("a message").place(), ('m', quiet.seq));
    drop(reader);
    service.stop().await;
}

async fn what_is_not_kept_any_more_is_told(place: &Place) {
    let service = serve(place).await;
    let made = session(&service.tenant).await.id;
    say(&service.tenant, made, "a").await;
    stream_in(&service.tenant, made, 2).await;
    service.tenant.session_events().prune(Timestamp::MAX).await.expect("pruned");
    // What was pruned, and what never was.
    for from in ["0.0", "2.3", "2.5", "3.4", "9.9"] {
        let mut reader = listen(&service, made, Some(from)).await;
        let told = reader.next().await.expect("an event");
        assert_eq!((told.event.as_str(), &told.data["reason"]), ("reset", &json!("gap")), "{from}");
        assert_eq!(told.id, "2.4", "whoever comes back begins with what happens now");
        assert_eq!(reader.next().await, None);
    }
    let mut reader = listen(&service, made, Some("2.4")).await;
    say(&service.tenant, made, "b").await;
    assert_eq!(reader.next().await.expect("a message").place(), ('m', 3));
    drop(reader);
    service.stop().await;
}

async fn a_client_that_takes_nothing_is_cut_off(place: &Place) {
    const MESSAGES: usize = 30;
    let options = Options { stream_patience: Duration::from_secs(1), ..Options::default() };
    let service = serve_with(place, options).await;
    let made = session(&service.tenant).await.id;
    let mut slow = listen(&service, made, None).await;
    let mut quick = listen(&service, made, None).await;
    let text = "x".repeat(1 << 20);
    for _ in 0..MESSAGES {
        say(&service.tenant, made, text.as_str()).await;
        quick.take_some(1).await;
    }
    tokio::time::sleep(Duration::from_secs(3)).await;
    let mut seqs = Vec::new();
    let last = loop {
        let told = slow.next().await.expect("an end that is told");
        match told.event.as_str() {
            "message.created" => seqs.push(told.place().1),
            _ => break told,
        }
    };
    assert_eq!((last.event.as_str(), &last.data["reason"]), ("reset", &json!("slow")));
    assert_eq!(slow.next().await, None);
    assert!(seqs.len() < MESSAGES);
    // It can go on where it was.
    let mut again = listen(&service, made, Some(&last.id)).await;
    let rest = again.take_some(MESSAGES - seqs.len()).await;
    seqs.extend(rest.iter().map(|told| told.place().1));
    assert_eq!(seqs, (1..=MESSAGES as i64).collect::<Vec<_>>());
    drop((quick, again));
    service.stop().await;
}

async fn an_idle_stream_is_kept_alive_past_the_request_timeout(place: &Place) {
    let options = Options {
        request_timeout: Duration::from_millis(500),
        stream_heartbeat: Duration::from_millis(100),
        ..Options::default()
    };
    let service = serve_with(place, options).await;
    let made = session(&service.tenant).await.id;
    let mut reader = listen(&service, made, None).await;
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_millis(1500) {
        assert!(reader.read().await, "no end");
    }
    assert!((5..=20).contains(&reader.heartbeats()), "{}", reader.heartbeats());
    say(&service.tenant, made, "still there").await;
    assert_eq!(reader.next().await.expect("a message").place(), ('m', 1));
    drop(reader);
    service.stop().await;
}

async fn the_end_of_a_session_is_the_end_of_its_streams(place: &Place) {
    let service = serve(place).await;
    let (other, _store) = another(place, &service).await;
    for by_http in [true, false] {
        let made = session(&service.tenant).await.id;
        let (mut here, mut there) = (listen(&service, made, None).await, listen(&other, made, Some("0.0")).await);
        say(&service.tenant, made, "a").await;
        for reader in [&mut here, &mut there] {
            assert_eq!(reader.next().await.expect("a message").place(), ('m', 1));
        }
        match by_http {
            true => assert_eq!(service.delete(&format!("sessions/{made}")).await.status, 204),
            // Without a word to anybody.
            false => service.tenant.sessions().delete(made).await.expect("deleted"),
        }
        for mut reader in [here, there] {
            let told = reader.next().await.expect("the end");
            assert_eq!((told.event.as_str(), &told.data), ("session.deleted", &json!({"session_id": made})));
            assert_eq!(reader.next().await, None);
        }
    }
    other.stop().await;
    service.stop().await;
}

async fn two_hundred_clients_share_a_session(place: &Place) {
    let service = serve(place).await;
    let made = session(&service.tenant).await.id;
    let readers = (0..200).map(|_| listen(&service, made, None));
    let mut readers = futures_util::future::join_all(readers).await;
    for _ in 0..5 {
        say(&service.tenant, made, "a").await;
        stream_in(&service.tenant, made, 3).await;
    }
    for told in futures_util::future::join_all(readers.iter_mut().map(|reader| reader.take_some(30))).await {
        assert_complete(&told, &[1, 3, 5, 7, 9], 25);
    }
    // They go, and the session is watched anew.
    drop(readers);
    let mut reader = listen(&service, made, None).await;
    say(&service.tenant, made, "b").await;
    assert_eq!(reader.next().await.expect("a message").place(), ('m', 11));
    drop(reader);
    service.stop().await;
}

async fn a_thousand_clients_come_and_go(place: &Place) {
    const CLIENTS: usize = 1000;
    const SESSIONS: usize = 50;
    const TURNS: usize = 4;
    let service = serve(place).await;
    let (other, _store) = another(place, &service).await;
    let mut sessions = Vec::new();
    for _ in 0..SESSIONS {
        sessions.push(session(&service.tenant).await.id);
    }
    // Each turn is a message, and one that is streamed with two deltas.
    let (whole, events): (Vec<i64>, i64) = ((0..TURNS as i64).map(|turn| turn * 2 + 1).collect(), TURNS as i64 * 4);
    let items = whole.len() + events as usize;
    let clients = (0..CLIENTS).map(|number| {
        let (service, other, made, whole) = (&service, &other, sessions[number % SESSIONS], &whole);
        async move {
            let (mut told, mut connections) = (Vec::<Told>::new(), 0);
            let mut chance = number * 7919 + 13;
            while told.len() < items {
                chance = (chance * 1_103_515_245 + 12_345) % (1 << 31);
                let server = if (chance >> 8) % 2 == 0 { service } else { other };
                let from = told.last().map_or("0.0", |told| told.id.as_str()).to_owned();
                let mut reader = listen(server, made, Some(&from)).await;
                let some = 1 + (chance >> 12) % items;
                told.extend(reader.take_some(some.min(items - told.len())).await);
                connections += 1;
            }
            assert_complete(&told, whole, events);
            connections
        }
    });
    let writers = async {
        for turn in 0..TURNS {
            for (number, made) in sessions.iter().enumerate() {
                let tenant = if number % 2 == 0 { &service.tenant } else { &other.tenant };
                say(tenant, *made, format!("{turn}")).await;
                stream_in(tenant, *made, 2).await;
            }
        }
    };
    let (connections, ()) = tokio::join!(futures_util::future::join_all(clients), writers);
    assert!(connections.iter().sum::<usize>() > CLIENTS * 3 / 2, "most came back");
    other.stop().await;
    service.stop().await;
}

async fn changed_messages_are_told(place: &Place) {
    let service = serve(place).await;
    let (other, _store) = another(place, &service).await;
    let made = session(&service.tenant).await.id;
    let first = service.post(&format!("sessions/{made}/messages"), json!({"role": "user", "content": "a"})).await;
    let path = format!("messages/{}", first.json(201)["id"].as_str().expect("an id"));
    say(&service.tenant, made, "b").await;
    let mut here = listen(&service, made, None).await;
    let mut there = listen(&other, made, None).await;
    let changed = service.patch(&path, json!({"content": "A", "metadata": {"edited": true}})).await;
    let tag = changed.header("etag").to_owned();
    let changed = changed.json(200);
    for reader in [&mut here, &mut there] {
        let told = reader.next().await.expect("the change");
        assert_eq!((told.event.as_str(), told.id.as_str(), &told.data["data"]), ("message.updated", "2.1", &changed));
        assert_eq!((&told.data["seq"], &told.data["message_id"]), (&json!(1), &changed["id"]));
    }
    // A change that is refused, or changes nothing, is none.
    let guarded = |tag: &str, content: &str| {
        let request = service.request(Method::PATCH, &path).header("if-match", tag);
        support::answer(request.json(&json!({"content": content})))
    };
    guarded("\"1\"", "never").await.problem(412);
    service.patch(&path, json!({})).await.json(200);
    service.patch(&path, json!({"content": 1})).await.problem(400);
    let again = guarded(&tag, "A2").await.json(200);
    for reader in [&mut here, &mut there] {
        let told = reader.next().await.expect("the change");
        assert_eq!((told.id.as_str(), &told.data["data"]), ("2.2", &again));
    }
    // Who comes later is told the message as it is, and what happened to it.
    let late = listen(&other, made, Some("0.0")).await.take_some(4).await;
    assert_complete(&late, &[1, 2], 2);
    assert_eq!(late[0].data, again);
    drop((here, there));
    other.stop().await;
    service.stop().await;
}

async fn deleted_messages_are_told_and_hold_nobody_up(place: &Place) {
    let service = serve(place).await;
    let made = session(&service.tenant).await.id;
    let mut first = listen(&service, made, Some("0.0")).await;
    for number in 1..=3 {
        say(&service.tenant, made, number.to_string()).await;
    }
    first.take_some(3).await;
    for seq in [2, 3] {
        let message = service.tenant.messages().get_by_seq(made, seq).await.expect("read").expect("there");
        assert_eq!(service.delete(&format!("messages/{}", message.id)).await.status, 204);
    }
    let mut late = listen(&service, made, Some("0.0")).await;
    assert_eq!(late.next().await.expect("a message").place(), ('m', 1));
    say(&service.tenant, made, "4").await;
    for reader in [&mut first, &mut late] {
        for (number, seq) in [(1, 2), (2, 3)] {
            let told = reader.next().await.expect("a deletion");
            assert_eq!((told.event.as_str(), told.place()), ("message.deleted", ('e', number)));
            assert_eq!((&told.data["seq"], &told.data["data"]), (&json!(seq), &json!({})));
        }
    }
    for reader in [&mut first, &mut late] {
        assert_eq!(reader.next().await.expect("a message").place(), ('m', 4));
    }
    drop((first, late));
    service.stop().await;
}

async fn a_server_that_stops_ends_its_streams(place: &Place) {
    let service = serve(place).await;
    let made = session(&service.tenant).await.id;
    let mut reader = listen(&service, made, None).await;
    let begun = Instant::now();
    service.stop().await;
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    assert_eq!(reader.next().await, None);
}
