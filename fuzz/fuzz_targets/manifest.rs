//! What `POST /v1/apply` and `meshctl apply -f` read: any bytes give objects or errors, never a panic, and what was
//! taken is taken again, to the same, in the form in which it is stored.
#![no_main]

use model::{
    manifest::{self, MANIFEST_OBJECTS_MAX, ManifestError},
    object::Parsed,
};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match manifest::parse(text) {
        Ok(objects) => {
            assert!(objects.len() <= MANIFEST_OBJECTS_MAX);
            objects.iter().for_each(takes_its_own_form);
        }
        Err(ManifestError::Invalid(invalid)) => {
            assert!(!invalid.errors.is_empty(), "invalid, but nothing is wrong");
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
});

/// What a GET answers can be PUT back.
fn takes_its_own_form(parsed: &Parsed) {
    let stored = serde_json::to_value(&parsed.object).expect("objects serialise");
    let again = Parsed::from_input(&stored, None).unwrap_or_else(|error| panic!("{error} in {stored}"));
    assert!(again.object.same_input(&parsed.object), "{stored}");
    assert_eq!(again.resource, parsed.resource);
}
