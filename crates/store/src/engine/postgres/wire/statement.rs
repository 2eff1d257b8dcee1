//! Statements: what they take and give, and their messages.

use std::sync::{Arc, Weak};

use bytes::BytesMut;
use postgres_protocol::{
    IsNull,
    message::{
        backend::{self, RowDescriptionBody},
        frontend::{self, BindError},
    },
};
use tokio_postgres::{
    fallible_iterator::FallibleIterator as _,
    types::{self, BorrowToSql, Kind, ToSql, Type},
};

use super::{
    super::error::Fault,
    Column, Message, Wire,
    row::{self, RowReader},
};

/// A statement that the server has prepared. It forgets it with the last of these.
pub(in super::super) struct Statement {
    name: String,
    pub(in super::super) params: Box<[Type]>,
    pub(in super::super) columns: Box<[Column]>,
    wire: Weak<Wire>,
}

impl Drop for Statement {
    fn drop(&mut self) {
        if let Some(wire) = self.wire.upgrade().filter(|_| !self.name.is_empty()) {
            wire.close_statement(&self.name);
        }
    }
}

impl Statement {
    /// Runs it with these parameters.
    pub(in super::super) fn run<P: BorrowToSql>(&self, params: &[P], out: &mut BytesMut) -> Result<(), Fault> {
        bind(&self.name, &self.params, params, out)?;
        frontend::execute("", 0, out).map_err(|error| Fault::unsendable(&error))
    }
}

/// Runs a text with parameters of these types, without preparing it; its columns come with the answer.
pub(in super::super) fn run_text<P: BorrowToSql>(
    text: &str,
    types: &[Type],
    params: &[P],
    out: &mut BytesMut,
) -> Result<(), Fault> {
    let unsendable = |error| Fault::unsendable(&error);
    frontend::parse("", text, types.iter().map(Type::oid), out).map_err(unsendable)?;
    bind("", types, params, out)?;
    frontend::describe(b'P', "", out).map_err(unsendable)?;
    frontend::execute("", 0, out).map_err(unsendable)
}

fn bind<P: BorrowToSql>(statement: &str, types: &[Type], params: &[P], out: &mut BytesMut) -> Result<(), Fault> {
    let given = || params.iter().map(BorrowToSql::borrow_to_sql).zip(types);
    let formats = given().map(|(param, ty)| param.encode_format(ty) as i16);
    let mut place = 0;
    let write = |(param, ty): (&dyn ToSql, &Type), out: &mut BytesMut| {
        place += 1;
        Ok(match param.to_sql_checked(ty, out)? {
            types::IsNull::Yes => IsNull::Yes,
            types::IsNull::No => IsNull::No,
        })
    };
    // All columns in the binary format.
    frontend::bind("", statement, formats, given(), write, Some(1), out).map_err(|error| match error {
        BindError::Conversion(cause) => Fault::unfit(place, &*cause),
        BindError::Serialization(error) => Fault::unsendable(&error),
    })
}

/// Prepares a text and asks what it takes and gives. Without a name it lasts until the next one, and with it no
/// transaction is needed to be rid of it.
///
/// # Errors
/// As [`Wire::ask`].
pub(in super::super) async fn prepare(wire: &Arc<Wire>, text: &str, named: bool) -> Result<Statement, Fault> {
    let name = if named { wire.next_name() } else { String::new() };
    // From here on it is forgotten should anything fail, or the caller go away.
    let mut statement = Statement { name, params: [].into(), columns: [].into(), wire: Arc::downgrade(wire) };
    let name = &statement.name;
    let (mut params, mut columns) = (Vec::new(), Vec::new());
    let encode = |out: &mut BytesMut| {
        let unsendable = |error| Fault::unsendable(&error);
        frontend::parse(name, text, [], out).map_err(unsendable)?;
        frontend::describe(b'S', name, out).map_err(unsendable)?;
        frontend::sync(out);
        Ok(())
    };
    let take = |message: Message<'_>| {
        match message {
            Message::Description(backend::Message::ParameterDescription(body)) => {
                params = body.parameters().collect::<Vec<_>>().map_err(|error| Fault::unreadable(&error))?;
            }
            Message::Description(backend::Message::RowDescription(body)) => {
                columns = row::described(&body).map_err(|error| Fault::unreadable(&error))?;
            }
            _ => {}
        }
        Ok(())
    };
    wire.ask(encode, take).await?;
    let (mut types, mut named_types) = (Vec::with_capacity(params.len()), Vec::with_capacity(columns.len()));
    for number in params {
        types.push(type_of(wire, number).await?);
    }
    for (name, number) in columns {
        named_types.push(Column { name, ty: type_of(wire, number).await? });
    }
    (statement.params, statement.columns) = (types.into(), named_types.into());
    Ok(statement)
}

/// The type with a number: one that every server has, or what the database says of it.
async fn type_of(wire: &Arc<Wire>, number: u32) -> Result<Type, Fault> {
    match known_type(wire, number) {
        Some(known) => Ok(known),
        None => look_up(wire, number).await,
    }
}

fn known_type(wire: &Wire, number: u32) -> Option<Type> {
    Type::from_oid(number).or_else(|| wire.types.lock().get(&number).cloned())
}

const TYPE: &str = "SELECT t.typname, t.typbasetype, t.typelem, n.nspname \
                    FROM pg_catalog.pg_type t JOIN pg_catalog.pg_namespace n ON n.oid = t.typnamespace WHERE t.oid = $1";

/// Asks the database for a type that not every server has.
async fn look_up(wire: &Arc<Wire>, number: u32) -> Result<Type, Fault> {
    let columns = [Type::NAME, Type::OID, Type::OID, Type::NAME].map(|ty| Column { name: "".into(), ty });
    let mut found = None;
    let encode = |out: &mut BytesMut| {
        run_text(TYPE, &[Type::OID], &[number], out)?;
        frontend::sync(out);
        Ok(())
    };
    let take = |message: Message<'_>| {
        let Message::Row(body) = message else { return Ok(()) };
        let mut reader = RowReader::default();
        let row = reader.read(&columns, body).ok_or_else(Fault::malformed_row)?;
        let value = |index| row.get(index).and_then(|(_, value)| value).unwrap_or_default();
        let text = |index| String::from_utf8_lossy(value(index)).into_owned();
        let number = |index| value(index).try_into().map_or(0, u32::from_be_bytes);
        found = Some((text(0), number(1), number(2), text(3)));
        Ok(())
    };
    wire.ask(encode, take).await?;
    // One that was dropped meanwhile.
    let Some((name, base, element, schema)) = found else { return Ok(unknown(number)) };
    let kind = match (base, element) {
        (0, 0) => Kind::Simple,
        (0, element) => Kind::Array(Box::pin(type_of(wire, element)).await?),
        (base, _) => Kind::Domain(Box::pin(type_of(wire, base)).await?),
    };
    let ty = Type::new(name, number, kind, schema);
    wire.types.lock().insert(number, ty.clone());
    Ok(ty)
}

fn unknown(number: u32) -> Type {
    Type::new(format!("type {number}"), number, Kind::Simple, String::new())
}

/// The columns of an answer that tells them; a type that was never looked up is left unknown.
pub(in super::super) fn columns(wire: &Wire, body: &RowDescriptionBody) -> Result<Vec<Column>, Fault> {
    let described = row::described(body).map_err(|error| Fault::unreadable(&error))?;
    let typed = described.into_iter().map(|(name, number)| {
        let ty = known_type(wire, number).unwrap_or_else(|| unknown(number));
        Column { name, ty }
    });
    Ok(typed.collect())
}
