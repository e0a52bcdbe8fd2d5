use serde_json::json;

use super::*;
use crate::duration::Timespan;

choice! {
    /// A colour.
    pub enum Colour {
        /// Like a rose.
        Red = "red",
        /// Like the sea.
        Blue = "blue",
    }
}

record! {
    /// A wheel.
    pub struct Wheel {
        /// In millimetres.
        "diameterMm" diameter_mm: Int<1, 2000>,
        /// Of the rim.
        "colour" colour: Option<Colour>,
        /// For how long it lasts.
        "lasts" lasts: Timespan = Timespan::from_secs(60),
    }
}

record! {
    /// A car.
    pub struct Car {
        /// All of them.
        "wheels" wheels: Vec<Wheel>,
        /// By name.
        "extras" extras: BTreeMap<crate::name::Name, Text<4>>,
    }
}

fn errors(value: serde_json::Value, mode: Mode) -> Vec<String> {
    let errors = decode::<Car>(&value, mode).map_or_else(|invalid| invalid.errors, |_| Vec::new());
    errors.into_iter().map(|error| format!("{}: {}", error.path, error.message)).collect()
}

#[test]
fn every_wrong_field_is_reported_by_its_path() {
    let car = json!({"wheels": [{"diameterMm": 0}, {"colour": "green", "size": 3}, 7], "extras": {"Big": "ok", "a": "12345"}, "x": 1});
    let want = [
        "x: unknown field; known are wheels, extras",
        "wheels[0].diameterMm: must be a whole number from 1 to 2000, is 0",
        "wheels[1].size: unknown field; known are diameterMm, colour, lasts",
        "wheels[1].diameterMm: is required",
        "wheels[1].colour: must be one of red, blue; is \"green\"",
        "wheels[2]: must be an object, is 7",
        "extras.Big: must be lower-case letters, digits and '-', starting and ending with a letter or digit: 'Big' is not",
        "extras.a: must be a text of at most 4 bytes without control characters, is \"12345\"",
    ];
    assert_eq!(errors(car, Mode::Strict), want);
}

#[test]
fn another_version_s_fields_are_passed_over_where_users_do_not_write() {
    assert_eq!(
        errors(json!({"wheels": [{"diameterMm": 5, "size": 3}], "x": 1}), Mode::Lenient),
        Vec::<String>::new()
    );
}

#[test]
fn defaults_fill_what_is_left_out_and_absent_fields_stay_out() {
    let wheel: Wheel = decode(&json!({"diameterMm": 5, "colour": null}), Mode::Strict).expect("valid");
    assert_eq!(serde_json::to_value(&wheel).expect("serialises"), json!({"diameterMm": 5, "lasts": "1m"}));
}

#[test]
fn the_schema_says_what_decoding_holds_to() {
    let schema = Wheel::schema();
    assert_eq!(schema["required"], json!(["diameterMm"]));
    assert_eq!(schema["properties"]["colour"]["enum"], json!(["red", "blue"]));
    assert_eq!(schema["properties"]["lasts"]["default"], json!("1m"));
    assert_eq!(schema["properties"]["diameterMm"]["description"], json!("In millimetres."));
}

#[test]
fn a_hostile_input_cannot_make_a_huge_answer() {
    let wheels: Vec<_> = (0..1_000).map(|_| json!({})).collect();
    assert_eq!(errors(json!({"wheels": wheels}), Mode::Strict).len(), FIELD_ERRORS_MAX);
    let wheels: Vec<_> = (0..=LIST_ELEMENTS_MAX).map(|_| json!({})).collect();
    assert_eq!(
        errors(json!({"wheels": wheels}), Mode::Strict),
        ["wheels: must have at most 4096 elements, has 4097"]
    );
}
