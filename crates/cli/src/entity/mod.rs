//! One machine for every entity: its commands are made from a description, and run through it.
//!
//! [`Entity`] says what an entity has: the columns to show, the fields that are options, and the functions of
//! the store to call. `table.rs` holds one description for each; nothing here knows any of them.

mod call;
mod table;

use std::{
    fs,
    io::{self, Read},
    pin::Pin,
};

use agentkeep::{
    Store, TenantStore,
    core::{Cursor, Direction, Error, Filter, ListRequest, Page, Result, limits},
};
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use serde_json::{Map, Value};

use crate::{
    confirm,
    failure::{Failure, Outcome},
    output::Output,
};

pub use call::session_id;
pub use table::ENTITIES;

/// What a command works on: the store, and the tenant in it.
pub struct Home {
    /// The open database.
    pub store: Store,
    /// The tenant that was chosen.
    pub tenant: TenantStore,
}

/// A call of the store on its way.
pub type Call<'a, T> = Pin<Box<dyn Future<Output = Result<T>> + 'a>>;
/// A function that finds something by what names it.
pub type Find = for<'a> fn(&'a Home, String) -> Call<'a, Option<Value>>;
/// A function that changes what is named.
pub type Change = for<'a> fn(&'a Home, String, Body) -> Call<'a, Value>;
/// The fields of an entity as they were given.
pub type Body = Map<String, Value>;

/// An entity, as the command line sees it.
pub struct Entity {
    /// The command: the plural.
    pub name: &'static str,
    /// The singular.
    pub one: &'static str,
    pub about: &'static str,
    /// What names one of them.
    pub key: &'static str,
    /// The fields a table shows.
    pub columns: &'static [&'static str],
    /// The fields that are options of create, update and upsert.
    pub fields: &'static [Field],
    /// The fields whose values are shown with `--reveal` only.
    pub secrets: &'static [&'static str],
    /// What a list may be narrowed to by an argument.
    pub scope: Option<Scope>,
    pub list: for<'a> fn(&'a Home, ListRequest) -> Call<'a, Page<Value>>,
    pub get: Option<Find>,
    /// What creating one is called.
    pub create_name: &'static str,
    pub create: Option<for<'a> fn(&'a Home, Body) -> Call<'a, Value>>,
    /// What there is to say when one was created.
    pub create_note: Option<&'static str>,
    pub update: Option<Change>,
    pub upsert: Option<for<'a> fn(&'a Home, Body) -> Call<'a, Value>>,
    pub delete: Option<for<'a> fn(&'a Home, String) -> Call<'a, ()>>,
    /// What a deletion takes with it, when it must be confirmed.
    pub delete_warning: Option<&'static str>,
    /// What else can be done.
    pub actions: &'static [Action],
    /// Entities that hang from this one.
    pub parts: &'static [&'static Entity],
}

/// A field that is an option.
pub struct Field {
    pub name: &'static str,
    pub kind: Kind,
    pub help: &'static str,
}

/// How the text of an option becomes JSON.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Text,
    /// A number, `true`, `false`, an object or an array.
    Json,
}

/// The argument of a list that stands for a filter.
pub struct Scope {
    pub argument: &'static str,
    pub field: &'static str,
    pub resolve: for<'a> fn(&'a Home, String) -> Call<'a, Value>,
}

/// Something that is done with one of the entities.
pub struct Action {
    pub name: &'static str,
    pub about: &'static str,
    /// The arguments, with their help. Those in brackets may be left out; those that begin with `--` are options,
    /// handed over behind the others as `--name=value`.
    pub arguments: &'static [(&'static str, &'static str)],
    /// The columns of an answer that is a list.
    pub columns: &'static [&'static str],
    pub run: for<'a> fn(&'a Home, Vec<String>) -> Call<'a, Answer>,
}

/// What an action gives.
pub enum Answer {
    One(Value),
    Many(Vec<Value>),
    Done(String),
}

impl Entity {
    /// The commands of this entity.
    pub fn command(&'static self) -> Command {
        let mut command =
            Command::new(self.name).about(self.about).subcommand_required(true).arg_required_else_help(true);
        command = command.subcommand(self.list_command());
        if self.get.is_some() {
            command = command.subcommand(self.with_reveal(self.keyed("get", format!("Show one {}", self.one))));
        }
        if self.create.is_some() {
            let verb = format!("{}{} {}", self.create_name[..1].to_uppercase(), &self.create_name[1..], self.a());
            command = command.subcommand(self.with_fields(Command::new(self.create_name), verb));
        }
        if self.upsert.is_some() {
            let about = format!("Create {}, or change the one with the same unique key", self.a());
            command = command.subcommand(self.with_fields(Command::new("upsert"), about));
        }
        if self.update.is_some() {
            let update = self.keyed("update", String::new());
            let about = format!("Change {}; what is not given stays, null takes a value away", self.a());
            command = command.subcommand(self.with_fields(update, about));
        }
        if self.delete.is_some() {
            command = command.subcommand(self.delete_command());
        }
        let actions = self.actions.iter().map(Action::command);
        command.subcommands(actions).subcommands(self.parts.iter().map(|part| part.command()))
    }

    /// The singular with its article.
    fn a(&self) -> String {
        let article = if self.one.starts_with(['a', 'e', 'i', 'o', 'M']) { "an" } else { "a" };
        format!("{article} {}", self.one)
    }

    fn list_command(&self) -> Command {
        let mut command = Command::new("list").about(format!("List {}", spaced(self.name))).args([
            Arg::new("filter").long("filter").short('f').value_name("FIELD=VALUE").action(ArgAction::Append).help(
                "Only those for which this holds; repeat it for several conditions. Operators: = ~ (SQL LIKE) < <= > >=",
            ),
            Arg::new("order").long("order").short('o').value_name("FIELD[:desc]").help("Order by this field"),
            Arg::new("limit")
                .long("limit")
                .short('n')
                .value_name("N")
                .value_parser(value_parser!(u32))
                .help(format!("Items on a page, 1 to {} [default: {}]", limits::PAGE_ITEMS, limits::DEFAULT_PAGE_ITEMS)),
            Arg::new("cursor").long("cursor").value_name("CURSOR").help("Start where the page before ended"),
            Arg::new("all").long("all").action(ArgAction::SetTrue).help("Go through all pages"),
            Arg::new("total").long("total").action(ArgAction::SetTrue).help("Tell how many there are in all"),
        ]);
        if let Some(scope) = &self.scope {
            let help = format!("Only those of this {}", scope.argument.to_lowercase());
            command = command.arg(Arg::new("scope").value_name(scope.argument).help(help));
        }
        let example = format!(
            "Examples:\n  agentkeep {0} list --limit 10\n  agentkeep {0} list --filter 'created_at>=2025-01-01T00:00:00Z' --all --json",
            self.name
        );
        self.with_reveal(command.after_help(example))
    }

    fn delete_command(&self) -> Command {
        let command = self.keyed("delete", format!("Delete {}", self.a()));
        match self.delete_warning {
            None => command,
            Some(_) => command.arg(yes_argument()),
        }
    }

    fn keyed(&self, name: &'static str, about: String) -> Command {
        Command::new(name).about(about).arg(Arg::new("key").value_name(self.key).required(true))
    }

    fn with_reveal(&self, command: Command) -> Command {
        if self.secrets.is_empty() {
            return command;
        }
        let help = format!("Show the values of {}", self.secrets.join(" and "));
        command.arg(Arg::new("reveal").long("reveal").action(ArgAction::SetTrue).help(help))
    }

    fn with_fields(&self, command: Command, about: String) -> Command {
        let data = Arg::new("data")
            .long("data")
            .value_name("JSON|@FILE|-")
            .help("All fields as a JSON object: given here, in a file (@FILE), or on standard input (-)");
        let fields = self.fields.iter().map(|field| {
            let value_name = if field.kind == Kind::Text { "TEXT" } else { "JSON" };
            // Made once and used until the process ends.
            let long: &'static str = field.name.replace('_', "-").leak();
            Arg::new(field.name).long(long).value_name(value_name).allow_hyphen_values(true).help(field.help)
        });
        self.with_reveal(command.about(about).args(fields).arg(data))
    }

    /// Runs the command that was chosen.
    pub async fn run(&'static self, home: &Home, matches: &ArgMatches, output: &Output) -> Outcome {
        let Some((verb, matches)) = matches.subcommand() else { return Err(Failure::usage("a command is needed")) };
        if let Some(part) = self.parts.iter().find(|part| part.name == verb) {
            return Box::pin(part.run(home, matches, output)).await;
        }
        if let Some(action) = self.actions.iter().find(|action| action.name == verb) {
            return action.run(home, matches, output).await;
        }
        match verb {
            "list" => self.run_list(home, matches, output).await,
            "delete" => self.run_delete(home, matches, output).await,
            _ => self.run_single(home, verb, matches, output).await,
        }
    }

    async fn run_list(&self, home: &Home, matches: &ArgMatches, output: &Output) -> Outcome {
        let mut request = list_request(matches)?;
        if let Some(scope) = &self.scope
            && let Some(key) = matches.get_one::<String>("scope")
        {
            request = request.filter(scope.field, (scope.resolve)(home, key.clone()).await?);
        }
        let (all, mut header) = (matches.get_flag("all"), true);
        loop {
            let mut page = (self.list)(home, request.clone()).await?;
            if !self.reveals(matches) {
                page.items.iter_mut().for_each(|item| self.hide(item));
            }
            output.items(self.columns, &page.items, std::mem::take(&mut header))?;
            if let Some(total) = page.total {
                output.say(&format!("total: {total}"));
                request.with_total = false;
            }
            match page.next {
                Some(next) if all => request.cursor = Some(next),
                Some(next) => {
                    output.say(&format!("next: --cursor {next}"));
                    return Ok(());
                }
                None => return Ok(()),
            }
        }
    }

    async fn run_delete(&self, home: &Home, matches: &ArgMatches, output: &Output) -> Outcome {
        let (Some(delete), key) = (self.delete, key(matches)) else { return Err(Failure::usage("unknown command")) };
        if let Some(warning) = self.delete_warning {
            let what = format!("Deleting {} {key} removes {warning}.", self.one);
            confirm::confirm(&what, matches.get_flag("yes"))?;
        }
        delete(home, key.clone()).await?;
        if output.json {
            output.json(&serde_json::json!({ "deleted": key }))?;
        }
        output.say(&format!("deleted {} {key}", self.one));
        Ok(())
    }

    async fn run_single(&self, home: &Home, verb: &str, matches: &ArgMatches, output: &Output) -> Outcome {
        let mut value = match (verb, self.get, self.create, self.upsert, self.update) {
            ("get", Some(get), ..) => {
                let found = get(home, key(matches)).await?;
                found.ok_or_else(|| Error::not_found(self.one, key(matches)))?
            }
            (verb, _, Some(create), ..) if verb == self.create_name => create(home, self.body(matches)?).await?,
            ("upsert", _, _, Some(upsert), _) => upsert(home, self.body(matches)?).await?,
            ("update", _, _, _, Some(update)) => update(home, key(matches), self.body(matches)?).await?,
            _ => return Err(Failure::usage(format!("unknown command {verb}"))),
        };
        if !self.reveals(matches) {
            self.hide(&mut value);
        }
        output.record(&value)?;
        if let Some(note) = self.create_note.filter(|_| verb == self.create_name) {
            output.say(note);
        }
        Ok(())
    }

    fn reveals(&self, matches: &ArgMatches) -> bool {
        self.secrets.is_empty() || matches.get_flag("reveal")
    }

    /// Replaces the values of secret fields; their keys stay.
    fn hide(&self, item: &mut Value) {
        for field in self.secrets {
            if let Some(Value::Object(secrets)) = item.get_mut(*field) {
                secrets.values_mut().for_each(|value| *value = Value::from("***"));
            }
        }
    }

    /// The fields of `--data`, and over them the options.
    fn body(&self, matches: &ArgMatches) -> Outcome<Body> {
        let mut body = match matches.get_one::<String>("data") {
            Some(data) => read_data(data)?,
            None => Body::new(),
        };
        for field in self.fields {
            let Some(text) = matches.get_one::<String>(field.name) else { continue };
            let value = match field.kind {
                Kind::Text => Value::from(text.as_str()),
                Kind::Json => serde_json::from_str(text)
                    .map_err(|error| Error::invalid(field.name, format!("is not JSON: {error}")))?,
            };
            body.insert(field.name.to_owned(), value);
        }
        if body.is_empty() {
            return Err(Failure::usage(format!(
                "nothing is given; `agentkeep {} --help` lists the options",
                self.name
            )));
        }
        Ok(body)
    }
}

impl Action {
    fn command(&self) -> Command {
        let arguments = self.arguments.iter().map(|(name, help)| {
            if let Some(option) = name.strip_prefix("--") {
                // Made once and used until the process ends.
                let value_name: &'static str = option.to_uppercase().leak();
                return Arg::new(*name).long(option).value_name(value_name).help(*help);
            }
            let optional = name.starts_with('[');
            Arg::new(*name).value_name(name.trim_matches(['[', ']'])).required(!optional).help(*help)
        });
        Command::new(self.name).about(self.about).args(arguments)
    }

    async fn run(&self, home: &Home, matches: &ArgMatches, output: &Output) -> Outcome {
        let names = self.arguments.iter().map(|(name, _)| *name);
        let (options, places): (Vec<&str>, Vec<&str>) = names.partition(|name| name.starts_with("--"));
        let given = |name: &str| matches.get_one::<String>(name).cloned();
        let options = options.into_iter().filter_map(|name| given(name).map(|value| format!("{name}={value}")));
        match (self.run)(home, places.into_iter().filter_map(given).chain(options).collect()).await? {
            Answer::One(value) => output.record(&value)?,
            Answer::Many(items) => {
                // What no item has is no column: groups have those that were asked for.
                let has = |column: &&&str| items.iter().any(|item| item.get(**column).is_some());
                let columns: Vec<&str> = self.columns.iter().filter(has).copied().collect();
                output.items(&columns, &items, true)?;
            }
            Answer::Done(text) => output.say(&text),
        }
        Ok(())
    }
}

/// The confirmation of what cannot be undone.
pub fn yes_argument() -> Arg {
    Arg::new("yes").long("yes").action(ArgAction::SetTrue).help("Do not ask")
}

fn spaced(name: &str) -> String {
    name.replace('-', " ")
}

fn key(matches: &ArgMatches) -> String {
    matches.get_one::<String>("key").cloned().unwrap_or_default()
}

fn list_request(matches: &ArgMatches) -> Result<ListRequest> {
    let mut request = ListRequest::new();
    for filter in matches.get_many::<String>("filter").into_iter().flatten() {
        request.filters.push(filter.parse::<Filter>()?);
    }
    request.order = matches.get_one::<String>("order").map(|order| parse_order(order)).transpose()?;
    let all = matches.get_flag("all");
    let usual = if all { limits::PAGE_ITEMS / 2 } else { limits::DEFAULT_PAGE_ITEMS };
    request.limit = matches.get_one::<u32>("limit").copied().unwrap_or(usual);
    request.cursor = matches.get_one::<String>("cursor").map(Cursor::new);
    request.with_total = matches.get_flag("total");
    Ok(request)
}

fn parse_order(text: &str) -> Result<(String, Direction)> {
    match text.split_once(':') {
        None | Some((_, "asc")) => Ok((text.trim_end_matches(":asc").to_owned(), Direction::Ascending)),
        Some((field, "desc")) => Ok((field.to_owned(), Direction::Descending)),
        Some((_, other)) => Err(Error::invalid("order", format!("{other:?} is no direction; write asc or desc"))),
    }
}

fn read_data(data: &str) -> Outcome<Body> {
    let text = match data.strip_prefix('@') {
        Some(path) => fs::read_to_string(path).map_err(|error| Failure::file(path.as_ref(), &error))?,
        None if data == "-" => {
            let mut text = String::new();
            io::stdin().read_to_string(&mut text).map_err(|error| Failure::file("standard input".as_ref(), &error))?;
            text
        }
        None => data.to_owned(),
    };
    match serde_json::from_str(&text) {
        Ok(Value::Object(body)) => Ok(body),
        Ok(_) => Err(Error::invalid("data", "must be a JSON object").into()),
        Err(error) => Err(Error::invalid("data", format!("is not JSON: {error}")).into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_has_a_field_and_a_direction() {
        assert_eq!(parse_order("name").expect("an order"), ("name".to_owned(), Direction::Ascending));
        assert_eq!(parse_order("name:desc").expect("an order"), ("name".to_owned(), Direction::Descending));
        assert!(parse_order("name:down").is_err());
    }

    #[test]
    fn every_command_is_well_formed() {
        for entity in ENTITIES {
            entity.command().debug_assert();
        }
    }
}
