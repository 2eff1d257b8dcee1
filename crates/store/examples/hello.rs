//! The example of the README: `cargo run -p agentkeep --example hello`.

use agentkeep::{
    Store,
    core::{MessageRole, NewMessage, NewSession, Result},
};

#[tokio::main]
async fn main() -> Result<()> {
    let store = Store::open_default().await?; // DATABASE_URL, or agentkeep.db in this folder
    let session = store.sessions().create(NewSession::default()).await?;
    store.messages().append(session.id, NewMessage::text(MessageRole::User, "Hello!")).await?;
    for message in store.messages().recent(session.id, 30).await? {
        println!("{} {}: {}", message.seq, message.role, message.content.unwrap_or_default());
    }
    Ok(())
}
