//! How the types that are no plain structs look in an OpenAPI document.

use utoipa::openapi::{
    KnownFormat, ObjectBuilder, RefOr, Schema, SchemaFormat, Type,
    schema::{AdditionalProperties, ArrayBuilder, ArrayItems, SchemaType},
};

use crate::{Json, JsonArray, JsonObject, Money, MoneyTotal, SecretObject, Timestamp};

/// Describes a type by an expression.
macro_rules! described {
    ($($type:ident => $schema:expr),* $(,)?) => {$(
        impl utoipa::PartialSchema for $type {
            fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::Schema> {
                $schema
            }
        }

        impl utoipa::ToSchema for $type {}
    )*};
}
pub(crate) use described;

/// A text, of a format if it has one.
pub(crate) fn text(format: Option<KnownFormat>, description: &str) -> RefOr<Schema> {
    let object = ObjectBuilder::new().schema_type(Type::String).format(format.map(SchemaFormat::KnownFormat));
    object.description(Some(description)).into()
}

/// One of some words.
pub(crate) fn words(words: &[&'static str]) -> RefOr<Schema> {
    ObjectBuilder::new().schema_type(Type::String).enum_values(Some(words.iter().copied())).into()
}

fn object(description: &str) -> RefOr<Schema> {
    let object = ObjectBuilder::new().schema_type(Type::Object).description(Some(description));
    object.additional_properties(Some(AdditionalProperties::FreeForm(true))).into()
}

/// A decimal number of US dollars; whoever writes one may use a JSON number as well.
fn dollars(description: &str) -> RefOr<Schema> {
    let types = SchemaType::from_iter([Type::String, Type::Number]);
    let schema = ObjectBuilder::new().schema_type(types).description(Some(description));
    schema.pattern(Some(r"^-?[0-9]{1,6}(\.[0-9]{1,12})?$")).into()
}

described! {
    Json => ObjectBuilder::new().schema_type(SchemaType::AnyValue).description(Some("Any JSON value, given back exactly as it came")).into(),
    JsonObject => object("A JSON object"),
    JsonArray => ArrayBuilder::new().items(ArrayItems::RefOrSchema(Box::default())).description(Some("A JSON array")).into(),
    SecretObject => object("A JSON object whose values are secrets: they are shown as ***"),
    Timestamp => text(Some(KnownFormat::DateTime), "A time, UTC with microseconds (RFC 3339)"),
    Money => dollars("An amount of US dollars, exact to 10⁻¹²"),
    MoneyTotal => dollars("A sum of amounts of US dollars, exact to 10⁻¹²"),
}
