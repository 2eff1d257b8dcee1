//! Agents that answer: over real HTTP, with models of the tests' own and an endpoint that misbehaves.

#[macro_use]
mod support;

use std::{sync::Arc, time::Duration};

use agentkeep::core::{AgentId, Finish, JsonObject, MessageRole, NewMessage, NewRun, RunId, SessionId, TokenCounts};
use agentkeep_server::{ModelEvent, ModelProvider, ModelRequest, ModelStream, Models, OpenAi, Options};
use axum::{Router, body::Body, http::StatusCode, response::IntoResponse, routing::post};
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use parking_lot::Mutex;
use reqwest::Method;
use serde_json::{Value, json};
use support::{
    Answer, Place, Service, answer, serve, serve_with,
    sse::{self, Told},
};

on_each_engine! {
    echo_answers_and_everything_is_kept,
    a_sequence_hands_each_answer_to_the_next,
    agents_at_once_answer_the_same,
    persona_prompt_and_settings_reach_the_model,
    tools_are_run_by_the_client,
    tools_of_agents_at_once_are_answered_together,
    an_endpoint_answers_in_pieces,
    an_endpoint_that_misbehaves_ends_in_an_error,
    an_endpoint_that_is_not_there_ends_in_an_error,
    an_endpoint_without_an_address_ends_in_an_error,
    a_run_goes_on_without_its_client,
    the_runs_of_a_dead_server_are_closed,
    a_run_that_is_under_way_at_the_end_fails,
    a_run_is_cancelled,
    a_repeated_start_streams_the_same_run,
    what_cannot_be_answered_is_refused,
}

/// What the event holds: the entity, or the delta.
fn held(told: &Told) -> &Value {
    told.data.get("data").unwrap_or(&told.data)
}

fn told(answer: &Answer) -> Vec<Told> {
    assert_eq!(answer.status, 200, "{}", answer.text);
    assert!(answer.header("content-type").starts_with("text/event-stream"));
    sse::parse(&answer.text)
}

/// The names of events, those of the same kind that follow one another once.
fn names(events: &[Told]) -> Vec<&str> {
    let mut names: Vec<&str> = events.iter().map(|event| event.event.as_str()).collect();
    names.dedup();
    names
}

fn last(events: &[Told]) -> &Told {
    events.last().expect("events")
}

/// What was streamed of a message.
fn streamed(events: &[Told], message: &Value) -> String {
    let deltas = events.iter().filter(|it| it.event == "message.delta" && it.data["message_id"] == *message);
    deltas.filter_map(|it| held(it)["content"].as_str()).collect()
}

async fn agent(service: &Service, name: &str, rest: Value) -> AgentId {
    let mut body = json!({"name": name});
    body.as_object_mut().expect("an object").extend(rest.as_object().expect("an object").clone());
    let new = serde_json::from_value(body).expect("an agent");
    service.tenant.agents().create(new).await.expect("an agent").id
}

async fn session(service: &Service, agent: AgentId) -> SessionId {
    let new = serde_json::from_value(json!({"agent_id": agent})).expect("a session");
    service.tenant.sessions().create(new).await.expect("a session").id
}

async fn say(service: &Service, session: SessionId, text: &str) -> Vec<Told> {
    told(&service.post("streaming/start", json!({"session_id": session, "message": text})).await)
}

async fn messages(service: &Service, session: SessionId) -> Vec<agentkeep::core::Message> {
    service.tenant.messages().recent(session, 100).await.expect("messages")
}

fn run_of(events: &[Told]) -> RunId {
    let run = events.iter().find_map(|event| event.data["run_id"].as_str()).expect("a run");
    run.parse().expect("an id")
}

/// Waits until something holds.
async fn until<F, Work>(what: &str, holds: F)
where
    F: Fn() -> Work,
    Work: Future<Output = bool>,
{
    for _ in 0..600 {
        if holds().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("{what} did not come to pass");
}

/// A model that keeps what it is asked.
#[derive(Clone, Default)]
struct Recorder(Arc<Mutex<Vec<ModelRequest>>>);

impl ModelProvider for Recorder {
    fn name(&self) -> &str {
        "recorder"
    }

    fn answer(&self, request: ModelRequest) -> ModelStream {
        self.0.lock().push(request);
        let events = [
            ModelEvent::Thinking("hm".to_owned()),
            ModelEvent::Text("recorded".to_owned()),
            ModelEvent::Usage { tokens: TokenCounts::new(10, 20), reported: JsonObject::default() },
            ModelEvent::Finished { reason: "stop".to_owned() },
        ];
        stream::iter(events.map(Ok)).boxed()
    }
}

/// A server whose models are these.
async fn serve_models(place: &Place, models: Models) -> Service {
    serve_with(place, Options { models, ..Options::default() }).await
}

async fn echo_answers_and_everything_is_kept(place: &Place) {
    let service = serve(place).await;
    let agent = agent(&service, "ann", json!({"model": "echo"})).await;
    let session = session(&service, agent).await;
    let events = say(&service, session, "one two three").await;
    assert_eq!(
        names(&events),
        ["message.created", "run.started", "message.started", "message.delta", "message.completed", "run.completed"]
    );
    assert_eq!(events[0].data["content"], "one two three");
    let whole = events.iter().find(|event| event.event == "message.completed").expect("a message");
    assert_eq!(streamed(&events, &whole.data["message_id"]), "one two three");

    let kept = messages(&service, session).await;
    let contents: Vec<&str> = kept.iter().filter_map(|message| message.content.as_deref()).collect();
    assert_eq!(contents, ["one two three", "one two three"]);
    let answer = &kept[1];
    assert_eq!((answer.role, answer.agent_id, answer.is_complete), (MessageRole::Assistant, Some(agent), true));
    assert_eq!(answer.metadata.to_value()["agent"], "ann");
    let run = service.get(&format!("runs/{}", run_of(&events))).await.json(200);
    assert_eq!((&run["status"], &run["agent_id"]), (&json!("completed"), &json!(agent)));
    assert_eq!(service.get("runs?status=completed").await.json(200)["data"], json!([run]));

    let ledger = service.tenant.ledger().list(&Default::default()).await.expect("a ledger").items;
    assert_eq!(ledger.len(), 1);
    assert_eq!((ledger[0].provider.as_str(), ledger[0].tokens), ("echo", TokenCounts::new(3, 3)));
    assert_eq!((ledger[0].session_id, ledger[0].message_id), (Some(session), Some(answer.id)));
    assert_eq!(ledger[0].request_id, Some(format!("{}/{}", run_of(&events), answer.id)));
    let used = service.tenant.agents().get(agent).await.expect("a read").expect("an agent");
    assert_eq!((used.usage_count, used.last_used_at.is_some()), (1, true));

    // A message may be an object, and another agent may answer.
    let other = self::agent(&service, "bob", json!({"model": "echo/other"})).await;
    let message = json!({"parts": [{"type": "text", "text": "four five"}], "metadata": {"n": 1}});
    let body = json!({"session_id": session, "message": message, "agent_id": other});
    let events = told(&service.post("streaming/start", body).await);
    assert_eq!(events[0].data["parts"], message["parts"]);
    assert_eq!(messages(&service, session).await[3].content.as_deref(), Some("four five"));
    service.stop().await;
}

async fn a_sequence_hands_each_answer_to_the_next(place: &Place) {
    let recorder = Recorder::default();
    let service = serve_models(place, Models::of(recorder.clone())).await;
    let first = agent(&service, "first", json!({"model": "echo"})).await;
    agent(&service, "second", json!({"model": "any"})).await;
    let all = agent(&service, "all", json!({"type": "SequentialAgent", "sub_agents": [first, "second"]})).await;
    let session = session(&service, all).await;
    let events = say(&service, session, "hello there").await;
    assert_eq!(last(&events).event, "run.completed");
    let kept = messages(&service, session).await;
    let told: Vec<(Option<&str>, Value)> =
        kept.iter().map(|it| (it.content.as_deref(), it.metadata.to_value()["agent"].clone())).collect();
    let expected = [
        (Some("hello there"), Value::Null),
        (Some("hello there"), json!("first")),
        (Some("recorded"), json!("second")),
    ];
    assert_eq!(told, expected);
    assert_eq!(recorder.0.lock()[0].messages, [json!({"role": "user", "content": "hello there"})]);
    let uses = service.tenant.agents().get(first).await.expect("a read").expect("an agent").usage_count;
    assert_eq!(uses, 1);
    service.stop().await;
}

async fn agents_at_once_answer_the_same(place: &Place) {
    let service = serve(place).await;
    for (name, echo) in [("quick", json!({})), ("slow", json!({"pause_ms": 20})), ("broken", json!({"fail_after": 1}))]
    {
        agent(&service, name, json!({"model": "echo", "config": {"echo": echo}})).await;
    }
    let both = json!({"type": "ParallelAgent", "sub_agents": ["slow", "quick"]});
    let both = agent(&service, "both", both).await;
    let session = session(&service, both).await;
    let events = say(&service, session, "a b c d").await;
    assert_eq!(last(&events).event, "run.completed");
    let completed: Vec<&Told> = events.iter().filter(|event| event.event == "message.completed").collect();
    let speakers: Vec<&Value> = completed.iter().map(|event| &held(event)["metadata"]["agent"]).collect();
    assert_eq!(speakers, ["quick", "slow"]);
    for event in completed {
        assert_eq!(streamed(&events, &event.data["message_id"]), "a b c d");
    }
    // One that fails does not keep the others from their end; the run has failed.
    let three = json!({"type": "ParallelAgent", "sub_agents": ["broken", "slow"]});
    let three = agent(&service, "three", three).await;
    let session = self::session(&service, three).await;
    let events = say(&service, session, "a b c d").await;
    assert_eq!(
        (last(&events).event.as_str(), &held(last(&events))["error"]["code"]),
        ("run.failed", &json!("echo_failed"))
    );
    let kept = messages(&service, session).await;
    let (broken, slow): (Vec<_>, Vec<_>) = kept[1..].iter().partition(|it| it.metadata.to_value()["agent"] == "broken");
    assert_eq!((broken[0].content.as_deref(), broken[0].is_complete), (Some("a "), false));
    assert_eq!(broken[0].metadata.to_value()["error"]["code"], "echo_failed");
    assert_eq!((slow[0].content.as_deref(), slow[0].is_complete), (Some("a b c d"), true));
    service.stop().await;
}

async fn persona_prompt_and_settings_reach_the_model(place: &Place) {
    let recorder = Recorder::default();
    let service = serve_models(place, Models::of(recorder.clone()).with_default("small")).await;
    let persona = json!({"name": "Ada", "description": "You help.", "personality": "dry", "expertise": ["tax", "law"]});
    let tools = json!(["search"]);
    let rest = json!({"persona": persona, "description": "For Q&A.", "tools": tools, "config": {"temperature": 0.5}});
    let agent = agent(&service, "ada", rest).await;
    let session = session(&service, agent).await;
    let ask = async |text: &str| {
        say(&service, session, text).await;
        recorder.0.lock().last().cloned().expect("a request")
    };
    let request = ask("hi").await;
    let persona = "You are Ada.\n\nYou help.\n\nYour personality: dry\n\nYou know about: tax, law.";
    assert_eq!(request.system, Some(format!("{persona}\n\nFor Q&A.")));
    assert_eq!((request.model.as_str(), &request.settings["temperature"]), ("small", &json!(0.5)));
    assert_eq!(request.tools[0]["function"]["name"], "search");

    let prompt = json!({"agent_id": agent, "name": "system", "text": "Be brief.", "active": true});
    let prompt = service.tenant.prompts().create(serde_json::from_value(prompt).expect("a prompt")).await.expect("it");
    let request = ask("again").await;
    assert_eq!(request.system, Some(format!("{persona}\n\nBe brief.\n\nFor Q&A.")));
    assert_eq!(request.messages.len(), 3, "the conversation is told: {:?}", request.messages);
    assert_eq!(request.messages[1], json!({"role": "assistant", "content": "recorded"}), "without the reasoning");
    service.tenant.prompts().deactivate(prompt.id).await.expect("a change");
    assert!(!ask("more").await.system.expect("a prompt").contains("brief"));
    let patch = serde_json::from_value(json!({"description": "For fun.", "model": "large"})).expect("a patch");
    service.tenant.agents().update(agent, patch).await.expect("a change");
    let request = ask("changed").await;
    assert!(request.system.expect("a prompt").ends_with("For fun."));
    assert_eq!(request.model, "large");
    let answer = messages(&service, session).await.pop().expect("an answer");
    assert_eq!(answer.parts.expect("parts").to_value()[0]["text"], "hm");
    service.tenant.agents().soft_delete(agent, &Default::default()).await.expect("a change");
    let body = json!({"session_id": session, "message": "gone"});
    assert_eq!(service.post("streaming/start", body).await.problem(404).0, "not_found");
    service.stop().await;
}

async fn tools_are_run_by_the_client(place: &Place) {
    let service = serve(place).await;
    let calls = json!([{"name": "add", "arguments": {"x": 1}}, {"name": "sub"}]);
    let agent = agent(&service, "ann", json!({"model": "echo", "config": {"echo": {"tool_calls": calls}}})).await;
    let session = session(&service, agent).await;
    let events = say(&service, session, "what is it?").await;
    assert_eq!(last(&events).event, "tool_calls.requested");
    let run = run_of(&events);
    let open = held(last(&events))["tool_calls"].as_array().expect("calls").clone();
    assert_eq!((open.len(), &open[0]["function"]["name"]), (2, &json!("add")));
    assert_eq!(service.get(&format!("runs/{run}")).await.json(200)["status"], "waiting");
    let asked = messages(&service, session).await.pop().expect("a message");
    assert_eq!((asked.kind.as_str(), asked.is_complete), ("tool_call", true));

    let (first, second) = (open[0]["id"].clone(), open[1]["id"].clone());
    let result = |id: &Value, content: Value| json!({"tool_call_id": id, "content": content});
    let give = |results: Value, key: &'static str| {
        let body = json!({"session_id": session, "run_id": run, "results": results});
        let request = service.request(Method::POST, "streaming/tool-results").header("idempotency-key", key);
        answer(request.json(&body))
    };
    let one = || result(&first, json!("2"));
    assert_eq!(give(json!([one()]), "a").await.problem(422).0, "tool_result_missing");
    assert_eq!(give(json!([one(), result(&json!("x"), json!(""))]), "b").await.problem(422).0, "tool_call_unknown");
    assert_eq!(give(json!([one(), one()]), "c").await.problem(422).0, "tool_result_twice");
    assert_eq!(messages(&service, session).await.len(), 2, "nothing was written");
    let both = json!([result(&second, json!({"n": 1.10})), one()]);
    let answered = give(both.clone(), "d").await;
    let events = told(&answered);
    assert_eq!(
        names(&events),
        ["message.created", "run.resumed", "message.started", "message.delta", "message.completed", "run.completed"]
    );
    assert_eq!(told(&give(both.clone(), "d").await), events, "repeated, the same is streamed");
    assert_eq!(give(both, "e").await.problem(409).0, "run_not_waiting");
    let kept = messages(&service, session).await;
    let contents: Vec<&str> = kept.iter().filter_map(|message| message.content.as_deref()).collect();
    assert_eq!(contents[2..], ["2", r#"{"n":1.1}"#, "2\n{\"n\":1.1}"]);
    assert_eq!((kept[2].tool_call_id.as_deref(), kept[2].tool_name.as_deref()), (first.as_str(), Some("add")));
    service.stop().await;
}

async fn tools_of_agents_at_once_are_answered_together(place: &Place) {
    let service = serve(place).await;
    let config = json!({"echo": {"tool_calls": [{"name": "look"}]}});
    for name in ["left", "right"] {
        agent(&service, name, json!({"model": "echo", "config": config})).await;
    }
    agent(&service, "both", json!({"type": "ParallelAgent", "sub_agents": ["left", "right"]})).await;
    agent(&service, "end", json!({"model": "echo"})).await;
    let all = agent(&service, "all", json!({"type": "SequentialAgent", "sub_agents": ["both", "end"]})).await;
    let session = session(&service, all).await;
    let events = say(&service, session, "look").await;
    let open = held(last(&events))["tool_calls"].as_array().expect("calls").clone();
    assert_eq!(open.len(), 2);
    let results: Vec<Value> = open
        .iter()
        .enumerate()
        .map(|(n, call)| json!({"tool_call_id": call["id"], "content": format!("saw {n}")}))
        .collect();
    let body = json!({"session_id": session, "run_id": run_of(&events), "results": results});
    let events = told(&service.post("streaming/tool-results", body).await);
    assert_eq!(last(&events).event, "run.completed");
    let end = messages(&service, session).await.pop().expect("an answer").content.expect("a text");
    assert!(end.starts_with("left: saw ") && end.contains("\n\nright: saw "), "{end}");
    service.stop().await;
}

/// An endpoint that answers by the name of the model.
async fn endpoint() -> String {
    let app = Router::new().route("/v1/chat/completions", post(misbehave));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move { axum::serve(listener, app).await });
    format!("http://{address}/v1")
}

fn chunk(delta: Value, reason: Value) -> String {
    format!("data: {}\n\n", json!({"choices": [{"index": 0, "delta": delta, "finish_reason": reason}]}))
}

async fn misbehave(headers: axum::http::HeaderMap, axum::Json(request): axum::Json<Value>) -> axum::response::Response {
    assert_eq!(headers["authorization"], "Bearer hunter2");
    let half = chunk(json!({"role": "assistant", "content": "half "}), Value::Null);
    let pieces = |pieces: Vec<Result<String, std::io::Error>>| Body::from_stream(stream::iter(pieces));
    let body = match request["model"].as_str().expect("a model") {
        "good" => {
            assert_eq!((&request["temperature"], &request["stream"]), (&json!(0.1), &json!(true)));
            let usage = json!({"prompt_tokens": 9, "completion_tokens": 5, "prompt_tokens_details": {"cached_tokens": 4},
                "completion_tokens_details": {"reasoning_tokens": 2}});
            let text = [
                ": hello\n\n".to_owned(),
                chunk(json!({"reasoning_content": "why"}), Value::Null),
                half,
                chunk(json!({"content": "and half é"}), json!("stop")),
                format!("data: {}\n\n", json!({"choices": [], "usage": usage})),
                "data: [DONE]\n\n".to_owned(),
            ]
            .concat();
            // In pieces that end within characters.
            let bytes: Vec<Result<Bytes, std::io::Error>> =
                text.as_bytes().chunks(7).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect();
            Body::from_stream(stream::iter(bytes))
        }
        "stalls" => Body::from_stream(stream::iter([Ok::<_, std::io::Error>(half)]).chain(stream::pending())),
        "silent" => std::future::pending().await,
        "breaks" => {
            // Before the error what came first has to be on its way.
            let pause = tokio::time::sleep(Duration::from_millis(50));
            let gone = stream::once(pause).map(|()| Err(std::io::Error::other("gone")));
            Body::from_stream(stream::iter([Ok(half)]).chain(gone))
        }
        "ends" => pieces(vec![Ok(half)]),
        "rubbish" => pieces(vec![Ok(half), Ok("data: {\"choices\": 7}\n\n".into())]),
        "bytes" => Body::from_stream(stream::iter([Ok::<_, std::io::Error>(vec![0xff_u8, 0xfe, b'\n'])])),
        "reports" => {
            pieces(vec![Ok(half), Ok("data: {\"error\": {\"message\": \"key hunter2 is spent\"}}\n\n".into())])
        }
        "huge" => {
            let line = stream::repeat_with(|| Ok::<_, std::io::Error>("x".repeat(65536))).take(1000);
            let start = stream::iter([Ok(half), Ok("data: {\"x\": \"".to_owned())]);
            Body::from_stream(start.chain(line))
        }
        "page" => return axum::response::Html("<h1>Welcome</h1>").into_response(),
        "500" => return (StatusCode::INTERNAL_SERVER_ERROR, "x".repeat(1 << 20)).into_response(),
        "429" => {
            let told = json!({"error": {"message": "slow down, hunter2"}});
            return (StatusCode::TOO_MANY_REQUESTS, axum::Json(told)).into_response();
        }
        "401" => return StatusCode::UNAUTHORIZED.into_response(),
        "elsewhere" => return axum::response::Redirect::temporary("http://127.0.0.1:9/").into_response(),
        other => panic!("{other}"),
    };
    ([("content-type", "text/event-stream")], body).into_response()
}

async fn an_endpoint_answers_in_pieces(place: &Place) {
    let endpoint = OpenAi::new(endpoint().await, Some("hunter2".to_owned()));
    let service = serve_models(place, Models::of(endpoint)).await;
    let agent = agent(&service, "good", json!({"model": "good", "config": {"temperature": 0.1}})).await;
    let session = session(&service, agent).await;
    let events = say(&service, session, "hi").await;
    assert_eq!(last(&events).event, "run.completed", "{:?}", last(&events));
    let answer = messages(&service, session).await.pop().expect("an answer");
    assert_eq!(answer.content.as_deref(), Some("half and half é"));
    assert_eq!(answer.usage.expect("usage").to_value()["prompt_tokens"], 9);
    let entry = service.tenant.ledger().list(&Default::default()).await.expect("a ledger").items.remove(0);
    let expected = TokenCounts { input: 5, output: 3, cache_read: 4, cache_write: 0, reasoning: 2 };
    assert_eq!((entry.provider.as_str(), entry.tokens), ("127.0.0.1", expected));
    service.stop().await;
}

async fn an_endpoint_that_misbehaves_ends_in_an_error(place: &Place) {
    let patience = Duration::from_millis(400);
    let endpoint = OpenAi::new(endpoint().await, Some("hunter2".to_owned())).idle_timeout(patience);
    let service = serve_models(place, Models::of(endpoint)).await;
    for (model, code, text) in [
        ("stalls", "model_timeout", "half "),
        ("silent", "model_timeout", ""),
        ("breaks", "model_broken_off", "half "),
        ("ends", "model_broken_off", "half "),
        ("rubbish", "model_protocol", "half "),
        ("bytes", "model_protocol", ""),
        ("reports", "model_failed", "half "),
        ("huge", "model_too_large", "half "),
        ("page", "model_protocol", ""),
        ("500", "model_failed", ""),
        ("429", "model_rate_limited", ""),
        ("401", "model_not_permitted", ""),
        ("elsewhere", "model_refused", ""),
    ] {
        let agent = agent(&service, model, json!({"model": model})).await;
        let session = session(&service, agent).await;
        let started = std::time::Instant::now();
        let events = say(&service, session, "hi").await;
        assert!(started.elapsed() < Duration::from_secs(10), "{model} took {:?}", started.elapsed());
        let ends: Vec<&str> = events.iter().rev().take(2).map(|event| event.event.as_str()).collect();
        assert_eq!(ends, ["run.failed", "message.incomplete"], "{model}");
        let error = &held(last(&events))["error"];
        assert_eq!(error["code"], code, "{model}: {error}");
        let broken = messages(&service, session).await.pop().expect("a message");
        assert_eq!((broken.is_streaming, broken.is_complete), (false, false), "{model}");
        assert_eq!(broken.content.as_deref(), Some(text), "{model}");
        assert_eq!(broken.metadata.to_value()["error"], *error, "{model}");
        assert!(!error.to_string().contains("hunter2"), "{error}");
    }
    service.stop().await;
}

async fn an_endpoint_that_is_not_there_ends_in_an_error(place: &Place) {
    let service = serve_models(place, Models::of(OpenAi::new("http://127.0.0.1:9/v1", None))).await;
    let agent = agent(&service, "any", json!({"model": "any"})).await;
    let session = session(&service, agent).await;
    assert_eq!(held(last(&say(&service, session, "hi").await))["error"]["code"], "model_unreachable");
    service.stop().await;
}

async fn an_endpoint_without_an_address_ends_in_an_error(place: &Place) {
    let service = serve_models(place, Models::of(OpenAi::new("nowhere", None))).await;
    let agent = agent(&service, "any", json!({"model": "any"})).await;
    let session = session(&service, agent).await;
    assert_eq!(held(last(&say(&service, session, "hi").await))["error"]["code"], "model_misconfigured");
    service.stop().await;
}

async fn slow(service: &Service) -> (AgentId, SessionId) {
    let agent = agent(service, "slow", json!({"model": "echo", "config": {"echo": {"pause_ms": 30}}})).await;
    (agent, session(service, agent).await)
}

/// Starts a run and goes away once it is there.
async fn start_and_leave(service: &Service, session: SessionId, words: usize) -> RunId {
    let body = json!({"session_id": session, "message": "word ".repeat(words)});
    let response = service.request(Method::POST, "streaming/start").json(&body).send().await.expect("an answer");
    drop(response);
    let page = service.tenant.runs().list(&Default::default()).await.expect("runs");
    page.items.iter().find(|run| run.session_id == session).expect("a run").id
}

async fn status_of(service: &Service, run: RunId) -> String {
    service.tenant.runs().get(run).await.expect("a read").expect("a run").status.to_string()
}

async fn a_run_goes_on_without_its_client(place: &Place) {
    let service = serve(place).await;
    let (_, session) = slow(&service).await;
    let run = start_and_leave(&service, session, 20).await;
    assert_eq!(status_of(&service, run).await, "running");
    until("the end of the run", || async { status_of(&service, run).await == "completed" }).await;
    let answer = messages(&service, session).await.pop().expect("an answer");
    assert_eq!((answer.content, answer.is_complete), (Some("word ".repeat(20)), true));
    service.stop().await;
}

async fn the_runs_of_a_dead_server_are_closed(place: &Place) {
    let service = serve(place).await;
    let (agent, session) = slow(&service).await;
    let tenant = &service.tenant;
    let later = tenant.now().plus(Duration::from_secs(600));
    let dead = tenant.runs().create(NewRun::new(session, "dead", later)).await.expect("a run");
    let alive = tenant.runs().create(NewRun::new(session, "alive", later)).await.expect("a run");
    let begin = |run: RunId| {
        let new = NewMessage { agent_id: Some(agent), ..NewMessage::empty(MessageRole::Assistant) };
        async move { tenant.messages().start(session, new, Some(run)).await.expect("a message").id }
    };
    let (left, kept) = (begin(dead.id).await, begin(alive.id).await);
    tenant.messages().delta(session, left, &agentkeep::core::Delta::text("half")).await.expect("a delta");
    // Its lease is over only now: the server may look at any moment.
    let over = tenant.now().minus(Duration::from_secs(1));
    let kept_runs = tenant.runs().heartbeat("dead", &[dead.id], over).await.expect("a lease");
    assert_eq!(kept_runs, [dead.id]);
    until("the end of the run", || async { status_of(&service, dead.id).await == "failed" }).await;
    let message = tenant.messages().get(left).await.expect("a read").expect("a message");
    assert_eq!((message.is_streaming, message.is_complete), (false, false));
    assert_eq!(message.content.as_deref(), Some("half"));
    assert_eq!(message.metadata.to_value()["error"]["code"], "server_stopped");
    let run = service.get(&format!("runs/{}", dead.id)).await.json(200);
    assert_eq!(run["error"]["code"], "server_stopped");
    // What somebody else is at is left alone.
    assert_eq!(status_of(&service, alive.id).await, "running");
    assert!(tenant.messages().get(kept).await.expect("a read").expect("a message").is_streaming);
    tenant.messages().finish(session, kept, Finish::default()).await.expect("an end");
    service.stop().await;
}

async fn a_run_that_is_under_way_at_the_end_fails(place: &Place) {
    let (service, reader) = (serve(place).await, place.store.clone());
    let (_, session) = slow(&service).await;
    let run = start_and_leave(&service, session, 100_000).await;
    let tenant = reader.tenant(service.tenant.id());
    // The server closes the database in the end; another handle on it is needed to look.
    let config = reader.config().clone();
    service.stop().await;
    let store = agentkeep::Store::open_with(config).await.expect("the database");
    let tenant = store.tenant(tenant.id());
    let run = tenant.runs().get(run).await.expect("a read").expect("a run");
    assert_eq!(run.error.expect("an error").to_value()["code"], "server_stopping");
    let message = tenant.messages().recent(session, 1).await.expect("messages").remove(0);
    assert_eq!((message.is_streaming, message.is_complete), (false, false));
    store.close().await;
}

async fn a_run_is_cancelled(place: &Place) {
    let service = serve(place).await;
    let (_, session) = slow(&service).await;
    let run = start_and_leave(&service, session, 100_000).await;
    let cancel = |run: RunId| answer(service.request(Method::POST, &format!("runs/{run}/cancel")));
    let cancelled = cancel(run).await.json(200);
    assert_eq!((&cancelled["status"], &cancelled["error"]["code"]), (&json!("failed"), &json!("cancelled")));
    let message = messages(&service, session).await.pop().expect("a message");
    assert_eq!((message.is_streaming, message.is_complete), (false, false));
    assert_eq!(cancel(run).await.problem(409).0, "illegal_transition");

    let config = json!({"echo": {"tool_calls": [{"name": "look"}]}});
    let waits = agent(&service, "waits", json!({"model": "echo", "config": config})).await;
    let session = self::session(&service, waits).await;
    let run = run_of(&say(&service, session, "look").await);
    assert_eq!(cancel(run).await.json(200)["status"], "failed");
    service.stop().await;
}

async fn a_repeated_start_streams_the_same_run(place: &Place) {
    let service = serve(place).await;
    let (_, session) = slow(&service).await;
    let start = |text: &str, last: Option<&str>| {
        let request = service.request(Method::POST, "streaming/start").header("idempotency-key", "k");
        let request = last.iter().fold(request, |request, last| request.header("last-event-id", *last));
        answer(request.json(&json!({"session_id": session, "message": text})))
    };
    let answers = futures_util::future::join_all((0..4).map(|_| start("a b c d", None))).await;
    let streams: Vec<Vec<Told>> = answers.iter().map(told).collect();
    for stream in &streams {
        assert_eq!(stream, &streams[0]);
    }
    let rest = told(&start("a b c d", Some(&streams[0][3].id)).await);
    assert_eq!(rest, streams[0][4..]);
    assert_eq!(start("something else", None).await.problem(422).0, "idempotency_key_reused");
    assert_eq!(messages(&service, session).await.len(), 2);
    assert_eq!(service.get("runs?total=true").await.json(200)["total"], 1);
    service.stop().await;
}

async fn what_cannot_be_answered_is_refused(place: &Place) {
    let service = serve_models(place, Models::none()).await;
    let good = agent(&service, "good", json!({})).await;
    let session = session(&service, good).await;
    let start = |body: Value| service.post("streaming/start", body);
    let unknown = "00000000-0000-7000-8000-000000000000";
    let body = |rest: Value| {
        let mut body = json!({"session_id": session, "message": "x"});
        body.as_object_mut().expect("an object").extend(rest.as_object().expect("an object").clone());
        body
    };
    assert_eq!(start(body(json!({"session_id": unknown}))).await.problem(404).0, "not_found");
    assert_eq!(start(body(json!({"agent_id": 999}))).await.problem(404).0, "not_found");
    assert_eq!(start(body(json!({"message": ""}))).await.problem(400), ("invalid".into(), "message".into()));
    assert_eq!(start(body(json!({"message": {"text": "x"}}))).await.problem(400).0, "invalid");
    assert_eq!(start(body(json!({"mesage": "x"}))).await.problem(400), ("invalid".into(), "mesage".into()));
    let inactive = agent(&service, "inactive", json!({"active": false})).await;
    assert_eq!(start(body(json!({"agent_id": inactive}))).await.problem(404).0, "not_found");
    for (name, rest, code) in [
        ("unserved", json!({"model": "gpt"}), "model_not_configured"),
        ("empty", json!({"type": "SequentialAgent"}), "sub_agent_missing"),
        ("headless", json!({"type": "ParallelAgent", "sub_agents": ["nobody"]}), "sub_agent_missing"),
        ("self", json!({"type": "ParallelAgent", "sub_agents": ["self"]}), "agent_cycle"),
    ] {
        let agent = agent(&service, name, rest).await;
        assert_eq!(start(body(json!({"agent_id": agent}))).await.problem(422).0, code, "{name}");
    }
    let mut below = good;
    for level in 0..8 {
        let rest = json!({"type": "SequentialAgent", "sub_agents": [below]});
        below = agent(&service, &format!("level {level}"), rest).await;
    }
    assert_eq!(start(body(json!({"agent_id": below}))).await.problem(422).0, "agent_too_deep");
    let wide = json!({"type": "ParallelAgent", "sub_agents": vec![good; 65]});
    let wide = agent(&service, "wide", wide).await;
    assert_eq!(start(body(json!({"agent_id": wide}))).await.problem(422).0, "agent_too_large");

    let nobody = service.tenant.sessions().create(Default::default()).await.expect("a session").id;
    let refused = start(body(json!({"session_id": nobody}))).await;
    assert_eq!(refused.problem(400), ("invalid".into(), "agent_id".into()));
    assert_eq!(messages(&service, session).await.len(), 0, "nothing was written");
    service.tenant.sessions().finish(session).await.expect("a change");
    assert_eq!(start(body(json!({}))).await.problem(409).0, "session_not_active");
    let results = json!({"session_id": session, "run_id": unknown, "results": []});
    assert_eq!(service.post("streaming/tool-results", results).await.problem(404).0, "not_found");
    service.stop().await;
}
