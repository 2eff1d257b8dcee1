//! The binary, run as a person or a script runs it, on a SQLite file and on PostgreSQL.
//!
//! PostgreSQL comes from DATABASE_URL (`cargo xtask test` provides one); without it the tests that need it
//! fail. The recorded conversations come from the folder AGENTKEEP_DATA, when it is set.

#[macro_use]
mod support;

use std::{
    fs,
    io::Write,
    process::Stdio,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use support::{Place, exported, lines};

on_both_engines! {
    what_is_imported_is_listed_shown_and_exported_equal
    importing_again_adds_nothing
    an_import_that_is_killed_and_repeated_adds_exactly_what_is_missing
    a_conversation_that_has_grown_is_extended
    an_id_that_holds_another_conversation_loses_nothing
    what_cannot_be_read_is_reported_and_the_rest_imported
    entities_are_created_changed_listed_and_deleted
    secrets_are_shown_when_asked_for
    tenants_do_not_see_one_another
    clearing_needs_a_yes
    money_is_priced_logged_counted_and_limited
    a_deployment_is_moved_on
    an_api_key_is_shown_once_and_revoked
    runs_are_listed_and_shown
}

/// Conversations with everything that is hard to keep.
fn conversations() -> Value {
    let text = r#"[
        {"id": "a", "title": "Numbers", "score": 0.1000, "messages": [
            {"role": "user", "content": "how much?", "x": 1.10, "big": 123456789012345678901234567890, "e": 1e400},
            {"role": "assistant", "content": null, "tool_calls": [
                {"id": "c1", "type": "function", "function": {"name": "price", "arguments": "{\"sku\":\"A\"}"}}]},
            {"role": "tool", "tool_call_id": "c1", "name": "price", "content": "nul \u0000 and escape \u0010 0"},
            {"role": "assistant", "tool_calls": [], "function_call": null},
            {"role": "assistant"}]},
        {"session_id": 7, "traj": [
            {"role": "developer", "content": "be brief"},
            {"role": "function", "name": "f", "content": ""},
            {"role": "user", "name": "ann", "content": [{"type": "text", "text": "😀"}, {"type": "image_url"}]},
            {"role": "user", "content": {"not": "usual"}, "$agentkeep": {"absent": ["content"]}},
            {"role": "tool", "content": "x", "name": "", "tool_call_id": null}]},
        {"conversation": [], "meta": {"nul": "\u0000", "nested": [1, {"a": null}]}},
        {"conversation": [], "meta": {"nul": "\u0000", "nested": [1, {"a": null}]}}
    ]"#;
    serde_json::from_str(text).expect("json")
}

fn list_of(item: &Value) -> &Value {
    ["messages", "traj", "conversation"].iter().find_map(|list| item.get(*list)).expect("a list of messages")
}

fn messages_of(items: &[Value]) -> Vec<Value> {
    items.iter().map(|item| list_of(item).clone()).collect()
}

/// Many conversations as JSON lines.
fn many(conversations: usize, messages: usize) -> (String, Vec<Value>) {
    let item = |number: usize| {
        let messages: Vec<Value> = (0..messages)
            .map(|turn| json!({"role": if turn % 2 == 0 { "user" } else { "assistant" }, "content": format!("{number}/{turn} {}", "x".repeat(200))}))
            .collect();
        json!({ "run": number, "messages": messages })
    };
    let items: Vec<Value> = (0..conversations).map(item).collect();
    (items.iter().map(|item| format!("{item}\n")).collect(), items)
}

fn what_is_imported_is_listed_shown_and_exported_equal(place: &Place) {
    let items = conversations();
    let file = place.write("log.json", serde_json::to_string_pretty(&items).expect("json").as_bytes());
    let report = place.succeed(&["import", &file, "--json", "--agent", "booking"]).json();
    assert_eq!((&report["sessions_added"], &report["messages_added"]), (&json!(4), &json!(10)), "{report}");

    let sessions = lines(&place.succeed(&["sessions", "list", "--json", "--order", "id"]).stdout);
    assert_eq!(sessions.len(), 4);
    assert_eq!(sessions[0]["name"], "Numbers");
    assert_eq!(sessions[0]["agent_id"], 1);
    let id = sessions[0]["id"].as_str().expect("an id");
    let shown = place.succeed(&["sessions", "show", id]).stdout;
    for part in ["Numbers", "USER", "how much?", "→ price", "\"sku\": \"A\"", "TOOL price", "nul ␀"] {
        assert!(shown.contains(part), "{part} is missing in:\n{shown}");
    }
    let last = place.succeed(&["sessions", "show", &id[..30], "--last", "1"]).stdout;
    assert!(last.contains("#5") && !last.contains("#4"), "{last}");

    let exported = exported(place, &[]);
    let input = items.as_array().expect("an array");
    assert_eq!(messages_of(&exported), messages_of(input));
    assert_eq!(exported[2]["metadata"], json!({"meta": {"nul": "\u{0}", "nested": [1, {"a": null}]}}));
    assert_eq!(messages_of(&support::exported(place, &["--session", id])), messages_of(&input[..1]));

    let copy = support::sqlite();
    let file = copy.write("export.jsonl", place.succeed(&["export"]).stdout.as_bytes());
    copy.succeed(&["import", &file]);
    assert_eq!(without_ids(support::exported(&copy, &[])), without_ids(exported));
}

fn without_ids(mut items: Vec<Value>) -> Vec<Value> {
    items.iter_mut().for_each(|item| drop(item.as_object_mut().and_then(|item| item.remove("id"))));
    items
}

fn importing_again_adds_nothing(place: &Place) {
    let file = place.write("log.json", conversations().to_string().as_bytes());
    place.succeed(&["import", &file]);
    let export = place.succeed(&["export"]).stdout;
    let exported = place.write("export.jsonl", export.as_bytes());
    for file in [file, exported] {
        let report = place.succeed(&["import", &file, "--json"]).json();
        assert_eq!((&report["sessions_unchanged"], &report["messages_added"]), (&json!(4), &json!(0)), "{report}");
        assert_eq!(place.succeed(&["export"]).stdout, export);
    }
}

fn an_import_that_is_killed_and_repeated_adds_exactly_what_is_missing(place: &Place) {
    let (log, items) = many(400, 10);
    let mut cut_off = 0;
    // No clock and no randomness are at hand; the number of the process differs from run to run.
    let seed = std::process::id() as usize;
    for round in 0..6_usize {
        // The child gets a part of the log and waits for more: it is killed while it writes, or while it waits.
        let share = 20 + (seed / (round + 1) + round * 37) % 80;
        let mut child = place.command(&["import", "-"]).stdin(Stdio::piped()).spawn().expect("starts");
        let mut input = child.stdin.take().expect("a pipe");
        input.write_all(&log.as_bytes()[..log.len() * share / 100]).expect("it reads");
        std::thread::sleep(Duration::from_millis((seed % 20 + round * 35) as u64));
        let started = Instant::now();
        while round == 5 && exported(place, &[]).is_empty() && started.elapsed() < Duration::from_secs(30) {
            std::thread::sleep(Duration::from_millis(50));
        }
        child.kill().expect("killed");
        child.wait().expect("gone");
        let stored = exported(place, &[]);
        assert_eq!(messages_of(&stored), messages_of(&items[..stored.len()]), "whole conversations, in order");
        cut_off += usize::from(!stored.is_empty() && stored.len() < items.len());
    }
    assert!(cut_off > 0, "no import was killed in the middle");
    let file = place.write("log.jsonl", log.as_bytes());
    let report = place.succeed(&["import", &file, "--json"]).json();
    assert_eq!(report["items"], 400);
    assert_eq!(messages_of(&exported(place, &[])), messages_of(&items));
}

fn a_conversation_that_has_grown_is_extended(place: &Place) {
    let messages: Vec<Value> = (0..5).map(|turn| json!({"role": "user", "content": format!("turn {turn}")})).collect();
    for (length, extended, added) in [(2, 0, 2), (5, 1, 3), (3, 0, 0), (5, 0, 0)] {
        let file = place.write("log.json", json!({"id": "x", "messages": messages[..length]}).to_string().as_bytes());
        let report = place.succeed(&["import", &file, "--json"]).json();
        assert_eq!((&report["sessions_extended"], &report["messages_added"]), (&json!(extended), &json!(added)));
    }
    assert_eq!(messages_of(&exported(place, &[])), [json!(messages)]);
}

fn an_id_that_holds_another_conversation_loses_nothing(place: &Place) {
    let item = |text: &str| json!({"id": "x", "messages": [{"role": "user", "content": text}]});
    let items = [item("one"), item("two"), item("two"), item("one")];
    let file = place.write("log.json", json!(items).to_string().as_bytes());
    for added in [2, 0] {
        let report = place.succeed(&["import", &file, "--json"]).json();
        assert_eq!(report["sessions_added"], added, "{report}");
    }
    assert_eq!(messages_of(&exported(place, &[])), messages_of(&items[..2]));
}

fn what_cannot_be_read_is_reported_and_the_rest_imported(place: &Place) {
    let good = r#"{"messages":[{"role":"user","content":"good"}]}"#;
    let mut log = format!(
        r#"[{good},{{"messages":[}},{good},{{"messages":[{{"role":"king"}}]}},{{"a":1}},{{"messages":[{{"role":"user","content":"\ud800"}}]}},"#
    )
    .into_bytes();
    log.extend_from_slice(b"{\"messages\":[{\"role\":\"user\",\"content\":\"\xFF\"}]},");
    log.extend_from_slice(good.as_bytes());
    log.push(b']');
    let file = place.write("log.json", &log);
    let ran = place.run(&["import", &file, "--json"]);
    assert_eq!(ran.code, 1, "{}", ran.stderr);
    let report = ran.json();
    assert_eq!((&report["items"], &report["sessions_added"], &report["unreadable"]), (&json!(8), &json!(3), &json!(5)));
    let reasons = [
        "'}' stands where a value is expected",
        "messages[0].role: \"king\"",
        "no list of chat messages",
        "surrogate",
        "UTF-8",
    ];
    for (problem, (item, reason)) in
        report["problems"].as_array().expect("problems").iter().zip([2, 4, 5, 6, 7].into_iter().zip(reasons))
    {
        assert_eq!(problem["item"], item, "{report}");
        assert!(problem["reason"].as_str().expect("text").contains(reason), "{problem}");
    }
    assert!(ran.stderr.contains("item 4 (line 1) cannot be read"), "{}", ran.stderr);
    assert_eq!(exported(place, &[]).len(), 3);
}

fn entities_are_created_changed_listed_and_deleted(place: &Place) {
    let create = |arguments: &[&str]| place.succeed(&[arguments, &["--json"]].concat()).json();
    let user = create(&["users", "create", "--name", "Ann", "--email", "ann@example.com"])["id"].clone();
    let user = user.as_str().expect("an id");
    create(&["agents", "create", "--name", "booking", "--model", "m1"]);
    create(&["agents", "update", "booking", "--model", "m2", "--note", "cheaper"]);
    let versions = place.succeed(&["agents", "versions", "diff", "booking", "1", "2"]).stdout;
    assert!(versions.contains("model") && versions.contains("m2"), "{versions}");
    create(&["agents", "versions", "restore", "booking", "1"]);
    assert_eq!(create(&["agents", "get", "booking"])["model"], "m1");
    let team = create(&["teams", "create", "--name", "desk", "--mode", "route"])["id"].clone();
    place.succeed(&["teams", "members", "add", "desk", "booking", "first"]);
    assert_eq!(lines(&place.succeed(&["teams", "members", "list", "desk", "--json"]).stdout).len(), 1);
    let session = create(&["sessions", "create", "--user-id", user, "--agent-id", "1", "--metadata", r#"{"k":1}"#]);
    let session = session["id"].as_str().expect("an id");
    let message = create(&["messages", "create", "--session-id", session, "--role", "user", "--content", "-hello"]);
    let message = message["id"].as_str().expect("an id");
    let artifact = create(&["artifacts", "create", "--message-id", message, "--kind", "file_meta", "--content", "{}"]);
    let memory = create(&["memories", "upsert", "--name", "likes", "--content", "tea", "--agent-id", "1"]);
    let prompt = create(&["prompts", "create", "--name", "greeting", "--text", "Hi"])["id"].clone();
    let prompt = prompt.as_str().expect("an id");
    assert_eq!(create(&["prompts", "activate", prompt])["active"], true);
    let preference =
        create(&["preferences", "upsert", "--user-id", user, "--category", "ui", "--preferences", r#"{"dark":true}"#]);
    let metric = create(&["metrics", "create", "--name", "latency", "--value", "1.5"]);
    assert_eq!(create(&["metrics", "statistics", "latency"])["count"], 1);
    let team = team.as_str().expect("an id");
    let decision = create(&["routing-decisions", "create", "--team-id", team, "--agent-id", "1", "--reason", "asked"]);
    let checkpoint = create(&["checkpoints", "create", "--session-id", session, "--channel-values", "{}"]);
    for (entity, item) in [
        ("artifacts", artifact),
        ("memories", memory),
        ("preferences", preference),
        ("metrics", metric),
        ("routing-decisions", decision),
        ("checkpoints", checkpoint),
    ] {
        let id = item["id"].as_str().expect("an id");
        assert_eq!(create(&[entity, "get", id])["id"], id);
        assert_eq!(lines(&place.succeed(&[entity, "list", "--json", "--total"]).stdout).len(), 1, "{entity}");
        place.succeed(&[entity, "delete", id]);
        let ran = place.run(&[entity, "get", id, "--json"]);
        assert!(ran.code == 1 && ran.stderr.contains(r#""code":"not_found""#), "{entity}: {}", ran.stderr);
    }
    assert_eq!(lines(&place.succeed(&["sessions", "list", "--filter", "metadata.k=1", "--json"]).stdout).len(), 1);
    place.succeed(&["users", "delete", "ann@example.com"]);
    assert_eq!(place.run(&["sessions", "get", session]).code, 1, "deleted with its user");
}

fn secrets_are_shown_when_asked_for(place: &Place) {
    let secret = r#"{"TOKEN":"hunter2"}"#;
    let create = ["mcp-servers", "create", "--name", "files", "--transport", "stdio", "--command", r#"["x"]"#];
    let created = place.succeed(&[&create[..], &["--env", secret]].concat()).stdout;
    let listed = place.succeed(&["mcp-servers", "list", "--json"]).stdout;
    let got = place.succeed(&["mcp-servers", "get", "files"]).stdout;
    for shown in [created, listed, got] {
        assert!(!shown.contains("hunter2"), "{shown}");
    }
    assert!(place.succeed(&["mcp-servers", "get", "files", "--reveal"]).stdout.contains("hunter2"));
    place.succeed(&["agents", "create", "--name", "a"]);
    place.succeed(&["mcp-servers", "assign", "files", "a", "read,write"]);
    assert!(place.succeed(&["mcp-servers", "of-agent", "a"]).stdout.contains("read"));
    place.succeed(&["mcp-servers", "unassign", "files", "a"]);
}

fn tenants_do_not_see_one_another(place: &Place) {
    place.succeed(&["tenants", "create", "--name", "acme"]);
    let file = place.write("log.json", conversations().to_string().as_bytes());
    place.succeed(&["import", &file, "--tenant", "acme"]);
    assert!(exported(place, &[]).is_empty());
    assert_eq!(exported(place, &["--tenant", "acme"]).len(), 4);
    assert!(place.run(&["--tenant", "nobody", "sessions", "list"]).stderr.contains("tenant nobody not found"));
    assert_eq!(place.run(&["tenants", "delete", "acme"]).code, 2);
    place.succeed(&["tenants", "delete", "acme", "--yes"]);
}

fn clearing_needs_a_yes(place: &Place) {
    place.succeed(&["users", "create", "--name", "Ann"]);
    for command in [&["db", "clear"][..], &["db", "init", "--force"]] {
        let ran = place.run(command);
        assert_eq!(ran.code, 2, "{command:?}: {}", ran.stderr);
        assert!(ran.stderr.contains("--yes"), "{}", ran.stderr);
    }
    assert_eq!(lines(&place.succeed(&["users", "list", "--json"]).stdout).len(), 1);
    place.succeed(&["db", "clear", "--yes"]);
    assert!(place.succeed(&["users", "list", "--json"]).stdout.is_empty());
    place.succeed(&["db", "init", "--force", "--yes"]);
    for command in ["status", "check", "health", "migrate"] {
        place.succeed(&["db", command]);
    }
    assert!(place.succeed(&["db", "migrate", "--dry-run", "--json"]).stdout.is_empty());
}

#[test]
fn what_is_asked_wrongly_is_told_and_changes_nothing() {
    let place = support::sqlite();
    for (arguments, code, text) in [
        (&["nonsense"][..], 2, "nonsense"),
        (&["sessions", "list", "--limit", "many"], 2, "many"),
        (&["users", "create"], 2, "nothing is given"),
        (&["sessions", "list", "--filter", "color=red"], 1, "\"color\" is no field"),
        (&["sessions", "list", "--order", "color"], 1, "\"color\" is no field"),
        (&["sessions", "list", "--limit", "0"], 1, "limit: is 0"),
        (&["sessions", "list", "--cursor", "x"], 1, "cursor: is none"),
        (&["sessions", "get", "zzz"], 1, "\"zzz\" is not a UUID"),
        (&["sessions", "create", "--data", r#"{"kind":"crowd"}"#], 1, "kind: "),
        (&["users", "create", "--data", r#"{"emial":"a"}"#], 1, "emial: unknown field"),
        (&["users", "create", "--data", "[1]"], 1, "data: must be a JSON object"),
        (&["users", "create", "--metadata", "[1]"], 1, "metadata: "),
        (&["import", "nowhere.json"], 1, "nowhere.json: "),
        (&["--database", "mysql://x", "users", "list"], 1, "is no database address"),
    ] {
        let ran = place.run(arguments);
        assert_eq!(ran.code, code, "{arguments:?}: {}", ran.stderr);
        assert!(ran.stderr.contains(text), "{arguments:?}: {}", ran.stderr);
        assert!(ran.stdout.is_empty(), "{arguments:?}: {}", ran.stdout);
    }
    assert!(place.succeed(&["users", "list"]).stdout.is_empty());
}

#[test]
fn a_database_that_is_none_or_away_is_told_within_five_seconds() {
    let place = support::sqlite();
    fs::write(
        place.folder.path().join("bad.db"),
        "this is a text, and not a short one, but no database at all".repeat(9),
    )
    .expect("written");
    let ran = place.run(&["--database", "sqlite://bad.db", "sessions", "list"]);
    assert!(ran.code == 1 && ran.stderr.contains("bad.db"), "{}", ran.stderr);
    // 192.0.2.0/24 is for documentation: nothing answers there.
    for address in ["127.0.0.1:1", "192.0.2.1:5432"] {
        let started = Instant::now();
        let ran = place.run(&["--database", &format!("postgres://u:secret@{address}/x"), "sessions", "list"]);
        assert!(started.elapsed() < Duration::from_secs(6), "{:?}", started.elapsed());
        assert!(ran.code == 1 && ran.stderr.contains(address), "{}", ran.stderr);
        assert!(!ran.stderr.contains("secret"), "{}", ran.stderr);
    }
}

#[test]
fn settings_come_from_the_nearest_file_and_name_what_is_wrong() {
    let place = support::sqlite();
    let below = place.folder.path().join("below");
    fs::create_dir(&below).expect("a folder");
    fs::write(place.folder.path().join("agentkeep.toml"), "database = \"sqlite://chosen.db\"\n").expect("written");
    let ran = support::finish(place.bare_command(&["users", "create", "--name", "Ann"]).current_dir(&below));
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert!(place.folder.path().join("chosen.db").exists());
    assert!(!ran.stderr.contains("database:"), "nothing was chosen by default: {}", ran.stderr);
    fs::write(place.folder.path().join("agentkeep.toml"), "tenant = \"x\"\npool = 3\n").expect("written");
    let ran = support::finish(&mut place.bare_command(&["users", "list"]));
    assert!(ran.stderr.contains("agentkeep.toml, line 2: unknown field `pool`"), "{}", ran.stderr);
}

#[test]
fn the_default_database_is_a_file_in_the_working_folder_and_is_told() {
    let place = support::sqlite();
    let ran = support::finish(&mut place.bare_command(&["users", "list"]));
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let file = place.folder.path().join("agentkeep.db");
    assert!(file.exists());
    assert!(ran.stderr.contains(&format!("database: {}", file.display())), "{}", ran.stderr);
}

#[test]
fn statements_are_logged_when_they_are_asked_for() {
    let place = support::sqlite();
    let ran = support::finish(place.command(&["users", "get", "a@example.com"]).env("AGENTKEEP_LOG_SQL", "true"));
    assert!(ran.stderr.contains("agentkeep::sql") && ran.stderr.contains("FROM users"), "{}", ran.stderr);
    assert!(!ran.stderr.lines().any(|line| line.contains("sql") && line.contains("a@example.com")), "{}", ran.stderr);
}

#[test]
fn completions_and_help_are_there() {
    let place = support::sqlite();
    for shell in ["bash", "zsh", "fish"] {
        assert!(place.succeed(&["completions", shell]).stdout.contains("mcp-servers"), "{shell}");
    }
    assert!(place.succeed(&["--help"]).stdout.contains("agentkeep.toml"));
    assert!(place.succeed(&["--version"]).stdout.starts_with("agentkeep "));
}

#[test]
fn the_sample_is_imported_and_comes_back() {
    let place = support::sqlite();
    let sample = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/support-chats.json");
    place.succeed(&["import", sample]);
    let items: Vec<Value> = serde_json::from_slice(&fs::read(sample).expect("the sample")).expect("json");
    assert_eq!(messages_of(&exported(&place, &[])), messages_of(&items));
}

/// A session of 100,000 messages is listed, shown and exported page by page.
#[test]
fn a_long_session_never_stands_in_memory() {
    let place = support::sqlite();
    let mut log = String::from(r#"{"id":"long","messages":["#);
    for number in 0..100_000 {
        let comma = if number == 0 { "" } else { "," };
        log.push_str(&format!(r#"{comma}{{"role":"user","content":"message {number} {}"}}"#, "y".repeat(80)));
    }
    log.push_str("]}");
    let file = place.write("long.json", log.as_bytes());
    place.succeed(&["import", &file]);
    let session = lines(&place.succeed(&["sessions", "list", "--json"]).stdout).remove(0);
    assert_eq!(session["message_count"], 100_000);
    let id = session["id"].as_str().expect("an id");
    for command in [&["messages", "list", id, "--all", "--json"][..], &["sessions", "show", id], &["export"]] {
        let (lines, peak) = place.measure(command);
        assert!(lines >= 1, "{command:?}");
        assert!(peak < 100 * 1024, "{command:?} took {peak} KiB");
    }
}

#[test]
fn recorded_conversations_come_back_and_need_little_memory() {
    let Some(folder) = std::env::var_os("AGENTKEEP_DATA") else { return };
    let file = std::path::Path::new(&folder).join("airline-sessions.json");
    let items: Vec<Value> = serde_json::from_slice(&fs::read(&file).expect("the data")).expect("json");
    for place in [support::sqlite(), support::postgres()] {
        let (_, peak) = place.measure(&["import", &file.display().to_string(), "--json"]);
        assert!(peak < 200 * 1024, "{peak} KiB");
        let exported = exported(&place, &[]);
        assert_eq!(messages_of(&exported), messages_of(&items));
        let messages: Vec<&Value> =
            exported.iter().flat_map(|item| item["messages"].as_array().expect("a list")).collect();
        let calls = messages.iter().filter_map(|message| message["tool_calls"].as_array()).map(Vec::len).sum::<usize>();
        assert_eq!((exported.len(), messages.len(), calls), (200, 5308, 1164));
        for (exported, mut item) in exported.into_iter().zip(items.clone()) {
            item.as_object_mut().and_then(|item| item.remove("traj"));
            assert_eq!(exported["metadata"], item);
        }
    }
}

fn money_is_priced_logged_counted_and_limited(place: &Place) {
    for (kind, price) in [("input", "3"), ("output", "15")] {
        let price = ["prices", "create", "--model", "large", "--kind", kind, "--per-million", price, "--json"];
        let since = ["--valid-from", "2020-01-01T00:00:00Z"];
        assert_eq!(place.succeed(&[&price[..], &since].concat()).json()["kind"], kind);
    }
    let overlapping = ["prices", "create", "--model", "large", "--kind", "input", "--per-million", "4"];
    let refused = place.run(&overlapping);
    assert_eq!(refused.code, 1);
    assert!(refused.stderr.contains("is valid from 2020-01-01"), "{}", refused.stderr);

    let log = |more: &[&str]| {
        let entry = ["tokens", "log", "--provider", "p", "--model", "large", "--input", "1000", "--json"];
        place.run(&[&entry[..], more].concat())
    };
    let first = log(&["--output", "200", "--agent-id", "7", "--request-id", "a"]).json();
    assert_eq!((&first["cost"], &first["total"]), (&json!("0.006"), &json!(1200)));
    assert_eq!(log(&["--request-id", "a"]).json(), first, "a repeated request is logged once");
    assert_eq!(log(&["--cost", "0.5"]).json()["cost"], "0.50");
    let refused = log(&["--output", "-1"]);
    assert!(refused.code == 1 && refused.stderr.contains("output"), "{}", refused.stderr);
    let id = first["id"].as_str().expect("an id");
    assert_eq!(place.succeed(&["tokens", "get", id, "--json"]).json(), first);
    assert_eq!(lines(&place.succeed(&["tokens", "list", "--json", "--filter", "agent_id=7"]).stdout).len(), 1);

    for _ in 0..2 {
        let stats = place.succeed(&["tokens", "stats", "--by", "model,agent", "--days", "30", "--json"]).stdout;
        let stats = lines(&stats);
        let told: Vec<_> = stats.iter().map(|group| (&group["agent_id"], &group["cost"], &group["input"])).collect();
        let expected = [(&Value::Null, &json!("0.50"), &json!(1000)), (&json!(7), &json!("0.006"), &json!(1000))];
        assert_eq!(told, expected);
        assert_eq!(place.succeed(&["tokens", "rebuild", "--json"]).json(), json!({ "entries": 2 }));
    }
    let table = place.succeed(&["tokens", "stats", "--by", "day"]).stdout;
    assert!(table.starts_with("START") && table.contains("0.506") && !table.contains("MODEL"), "{table}");
    assert_ne!(place.run(&["tokens", "stats", "--by", "weather"]).code, 0);

    let budget = ["budgets", "create", "--scope", "tenant", "--period", "total", "--limit"];
    assert!(place.run(&[&budget[..], &["0"]].concat()).stderr.contains("must be more than 0"));
    let made = place.succeed(&[&budget[..], &["1", "--json"]].concat()).json();
    let id = made["id"].as_str().expect("an id");
    let left = || place.succeed(&["budgets", "get", id, "--json"]).json()["left"].clone();
    assert_eq!(left(), "0.494", "what was spent before counts");
    let held = place.succeed(&["budgets", "reserve", "0.4", "--key", "job", "--json"]).json();
    assert_eq!(left(), "0.094");
    let refused = place.run(&["budgets", "reserve", "0.1", "--json"]);
    assert_eq!(refused.code, 1);
    assert!(refused.stderr.contains("budget_exceeded"), "{}", refused.stderr);
    let held = held["id"].as_str().expect("an id");
    assert_eq!(place.succeed(&["budgets", "settle", held, "0.1", "--json"]).json()["status"], "settled");
    assert_eq!(left(), "0.394");
    let reservations = place.succeed(&["budgets", "reservations", "list", "--json"]).stdout;
    assert_eq!(lines(&reservations)[0]["cost"], "0.10");
    let second = place.succeed(&["budgets", "reserve", "0.2", "--json"]).json();
    place.succeed(&["budgets", "release", second["id"].as_str().expect("an id")]);
    assert_eq!(left(), "0.394");
    place.succeed(&["budgets", "update", id, "--limit", "2"]);
    assert_eq!(left(), "1.394");
    place.succeed(&["budgets", "delete", id]);
}

fn runs_are_listed_and_shown(place: &Place) {
    let session = place.succeed(&["sessions", "create", "--name", "x", "--json"]).json();
    let session = session["id"].as_str().expect("an id");
    assert_eq!(place.succeed(&["runs", "list", session, "--filter", "status=running", "--json"]).stdout, "");
    let missing = place.run(&["runs", "get", "00000000-0000-0000-0000-000000000000"]);
    assert!(missing.code == 1 && missing.stderr.contains("not found"), "{}", missing.stderr);
    let refused = place.run(&["runs", "create"]);
    assert!(refused.code == 2, "runs are the business of who answers: {}", refused.stderr);
}

fn a_deployment_is_moved_on(place: &Place) {
    let made = place.succeed(&["deployments", "create", "--git-sha", "abc", "--branch", "main", "--json"]).json();
    let id = made["id"].as_str().expect("an id");
    let moved = place.succeed(&["deployments", "status", id, "testing", "unit tests", "--json"]).json();
    assert_eq!((&moved["status"], &moved["report"]), (&json!("testing"), &json!("unit tests")));
    let refused = place.run(&["deployments", "status", id, "healthy"]);
    assert!(refused.code == 1 && refused.stderr.contains("is testing and cannot become healthy"), "{}", refused.stderr);
    let told = place.succeed(&["deployments", "get", id, "--json"]).json();
    assert_eq!(told["history"].as_array().map(Vec::len), Some(2));
    assert_eq!(lines(&place.succeed(&["deployments", "list", "--json"]).stdout).len(), 1);
}

fn an_api_key_is_shown_once_and_revoked(place: &Place) {
    let create = ["keys", "create", "--name", "ci", "--scopes", "read,sessions:write", "--expires-in", "30d", "--json"];
    let ran = support::finish(place.command(&create).env("AGENTKEEP_LOG_SQL", "true"));
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let made = ran.json();
    let (id, key) = (made["id"].as_str().expect("an id"), made["key"].as_str().expect("a key"));
    assert_eq!(made["scopes"], json!(["read", "sessions:write"]));
    assert!(
        key.starts_with(&format!("ak_1_{}_", made["prefix"].as_str().expect("a prefix"))) && made["hash"].is_null()
    );
    assert!(made["expires_at"].as_str() > made["created_at"].as_str(), "{made}");
    assert!(ran.stderr.contains("the key is shown only now"), "{}", ran.stderr);
    let secret = key.rsplit('_').next().expect("a secret");
    assert!(ran.stderr.contains("INSERT INTO api_keys") && !ran.stderr.contains(secret), "{}", ran.stderr);

    let text = place.succeed(&["keys", "create", "--name", "a", "--scopes", "admin"]).stdout;
    assert_eq!(text.matches("ak_1_").count(), 1, "{text}");
    let changed = place.succeed(&["keys", "update", id, "--name", "deploy", "--json"]).stdout;
    let listed = place.succeed(&["keys", "list", "--json"]).stdout;
    assert_eq!(lines(&listed).len(), 2);
    let revoked = place.succeed(&["keys", "revoke", id, "--json"]).stdout;
    assert_eq!(place.succeed(&["keys", "revoke", id, "--json"]).stdout, revoked);
    let got = place.succeed(&["keys", "get", id, "--json"]);
    assert!(got.json()["revoked_at"].is_string() && got.json()["name"] == "deploy", "{}", got.stdout);
    for shown in [&changed, &listed, &revoked, &got.stdout, &got.stderr] {
        assert!(!shown.contains("ak_1_") && !shown.contains(secret), "{shown}");
    }
    place.succeed(&["keys", "delete", id]);
    assert_eq!(place.run(&["keys", "get", id]).code, 1);
    for (arguments, wanted) in [
        (&["keys", "create", "--name", "x", "--scopes", "root"][..], "scopes: scopes: \"root\" is none of read"),
        (&["keys", "create", "--name", "x", "--scopes", "read", "--expires-in", "soon"], "expires_in"),
        (&["keys", "create", "--name", "x", "--scopes", "read", "--expires-at", "2020-01-01T00:00:00Z"], "expires_at"),
        (&["keys", "update", id, "--scopes", "admin"], "scopes: unknown field"),
    ] {
        let ran = place.run(arguments);
        assert!(ran.code != 0 && ran.stderr.contains(wanted), "{arguments:?}: {}", ran.stderr);
    }
}
