use super::*;

const SECRET: &[u8] = b"the root's key";

fn keyfile() -> Unlock {
    Unlock::new(UnlockKind::Keyfile, &[7; 32]).expect("long enough")
}

fn recovery() -> RecoveryPassphrase {
    RecoveryPassphrase::generate(std::array::from_fn(|n| u8::try_from(n * 13 % 256).expect("a byte")))
}

/// A blob whose derivations are cheap: these tests are about its parts, not about argon2's price.
fn cheap() -> Sealed {
    let data_key = [9; KEY_BYTES];
    let wrap = |unlock: &Unlock| {
        let mut wrapped = Wrapped {
            kind: unlock.kind,
            salt: [1; SALT_BYTES],
            memory_kib: 8,
            passes: 1,
            nonce: [0; NONCE_BYTES],
            key: Vec::new(),
        };
        let context = wrapped.context();
        let key = unlock.derive(&wrapped).expect("it derives");
        (wrapped.nonce, wrapped.key) = encrypt(&key, &context, &data_key).expect("it encrypts");
        wrapped
    };
    let recovery = Unlock::recovery(recovery().expose()).expect("well formed");
    Sealed::finish(vec![wrap(&keyfile()), wrap(&recovery)], &data_key, SECRET).expect("it seals")
}

#[test]
fn each_way_opens_it_and_no_other() {
    let recovery = recovery();
    let unlocks = [keyfile(), Unlock::recovery(recovery.expose()).expect("well formed")];
    let sealed = Sealed::seal(SECRET, &unlocks).expect("it seals");
    assert_eq!(sealed.kinds(), [UnlockKind::Keyfile, UnlockKind::Recovery]);
    for unlock in &unlocks {
        assert_eq!(sealed.open(unlock).expect("it opens").as_slice(), SECRET);
    }
    let other = Unlock::new(UnlockKind::Keyfile, &[8; 32]).expect("long enough");
    assert_eq!(sealed.open(&other).expect_err("another key"), SealError::Wrong(UnlockKind::Keyfile));
    let passphrase = Unlock::new(UnlockKind::Passphrase, &[7; 32]).expect("long enough");
    let refused = sealed.open(&passphrase).expect_err("another kind").to_string();
    assert_eq!(refused, "the sealed key cannot be unlocked by a Passphrase, only by [Keyfile, Recovery]");
}

#[test]
fn it_travels_and_hides_what_it_holds() {
    let sealed = cheap();
    let json = serde_json::to_vec(&sealed).expect("it serialises");
    assert_eq!(serde_json::from_slice::<Sealed>(&json).expect("it parses"), sealed);
    let hidden = |bytes: &[u8]| !bytes.windows(SECRET.len()).any(|window| window == SECRET);
    assert!(hidden(&sealed.sealed) && hidden(&json));
    assert_eq!(format!("{sealed:?}"), "Sealed { version: 1, kinds: [Keyfile, Recovery], .. }");
}

#[test]
fn two_seals_of_one_key_have_nothing_in_common() {
    let (a, b) = (cheap(), Sealed::seal(SECRET, &[keyfile()]).expect("it seals"));
    assert_ne!(a.sealed, b.sealed);
    assert_ne!(a.unlocks[0].salt, b.unlocks[0].salt);
    assert_eq!((b.unlocks[0].memory_kib, b.unlocks[0].passes), (MEMORY_KIB, PASSES));
}

#[test]
fn a_flipped_bit_anywhere_opens_nothing() {
    let sealed = cheap();
    assert!(sealed.open(&keyfile()).is_ok());
    type Bytes = fn(&mut Sealed) -> Vec<&mut u8>;
    let flips: [(&str, Bytes); 8] = [
        ("secret", |sealed| sealed.sealed.iter_mut().collect()),
        ("nonce", |sealed| sealed.nonce.iter_mut().collect()),
        ("my key", |sealed| sealed.unlocks[0].key.iter_mut().collect()),
        ("my nonce", |sealed| sealed.unlocks[0].nonce.iter_mut().collect()),
        ("my salt", |sealed| sealed.unlocks[0].salt.iter_mut().collect()),
        ("the other's key", |sealed| sealed.unlocks[1].key.iter_mut().collect()),
        ("the other's nonce", |sealed| sealed.unlocks[1].nonce.iter_mut().collect()),
        ("the other's salt", |sealed| sealed.unlocks[1].salt.iter_mut().collect()),
    ];
    for (part, bytes) in flips {
        let length = bytes(&mut sealed.clone()).len();
        for bit in 0..length * 8 {
            let mut changed = sealed.clone();
            *bytes(&mut changed)[bit / 8] ^= 1 << (bit % 8);
            assert!(changed.open(&keyfile()).is_err(), "{part}, bit {bit}");
        }
    }
}

#[test]
fn changed_structure_opens_nothing() {
    let changed = |change: fn(&mut Sealed)| {
        let mut sealed = cheap();
        change(&mut sealed);
        sealed.open(&keyfile()).expect_err("changed")
    };
    assert_eq!(changed(|sealed| sealed.version = 2), SealError::Version(2));
    assert_eq!(changed(|sealed| sealed.unlocks.truncate(1)), SealError::Tampered, "recovery was cut off");
    assert_eq!(changed(|sealed| sealed.unlocks.reverse()), SealError::Tampered);
    assert_eq!(changed(|sealed| sealed.unlocks[1].kind = UnlockKind::Passphrase), SealError::Tampered);
    assert_eq!(changed(|sealed| sealed.unlocks[0].passes = 2), SealError::Wrong(UnlockKind::Keyfile));
    assert_eq!(
        changed(|sealed| sealed.unlocks[0].memory_kib = u32::MAX),
        SealError::Demand { memory_kib: u32::MAX, passes: 1 }
    );
    assert!(matches!(changed(|sealed| sealed.unlocks[0].passes = 0), SealError::Demand { .. }));
    assert_eq!(changed(|sealed| sealed.unlocks = vec![sealed.unlocks[0].clone(); 9]), SealError::Unlocks(9));
}

#[test]
fn another_way_can_be_added_and_replaces_one_of_its_kind() {
    let sealed = cheap();
    let passphrase = Unlock::new(UnlockKind::Passphrase, b"correct horse battery").expect("long enough");
    let both = sealed.also(&keyfile(), &passphrase).expect("it opens");
    assert_eq!(both.kinds(), [UnlockKind::Keyfile, UnlockKind::Recovery, UnlockKind::Passphrase]);
    for unlock in [&passphrase, &keyfile()] {
        assert_eq!(both.open(unlock).expect("it opens").as_slice(), SECRET);
    }
    let other = Unlock::new(UnlockKind::Keyfile, &[8; 32]).expect("long enough");
    let changed = both.also(&passphrase, &other).expect("it opens");
    assert!(changed.open(&other).is_ok());
    assert_eq!(changed.open(&keyfile()).expect_err("replaced"), SealError::Wrong(UnlockKind::Keyfile));
}

#[test]
fn weak_secrets_and_empty_seals_are_refused() {
    let weak = Unlock::new(UnlockKind::Passphrase, b"12345678901").expect_err("11 bytes");
    assert_eq!(weak, SealError::Weak { kind: UnlockKind::Passphrase, bytes: 11 });
    assert_eq!(Sealed::seal(SECRET, &[]).expect_err("no way in"), SealError::Unlocks(0));
}

#[test]
fn a_recovery_passphrase_can_be_typed_as_people_type() {
    let recovery = recovery();
    let text = recovery.expose().to_owned();
    assert_eq!(text.split('-').map(str::len).collect::<Vec<_>>(), [4; 8]);
    let sealed = cheap();
    let typed = [text.to_lowercase(), text.replace('-', " "), text.replace('0', "o").replace('1', "l")];
    for typed in typed {
        let unlock = Unlock::recovery(&typed).expect("well formed");
        assert_eq!(sealed.open(&unlock).expect("it opens").as_slice(), SECRET, "{typed}");
    }
    assert_eq!(Unlock::recovery(&text[..38]).expect_err("cut"), SealError::Recovery(31));
    assert!(!format!("{recovery:?}").contains(&text));
}

#[test]
fn every_bit_of_the_dice_counts() {
    let of = |dice| RecoveryPassphrase::generate(dice).expose().to_owned();
    assert_eq!(of([0; 20]), "0000-0000-0000-0000-0000-0000-0000-0000");
    assert_eq!(of([0xff; 20]), "ZZZZ-ZZZZ-ZZZZ-ZZZZ-ZZZZ-ZZZZ-ZZZZ-ZZZZ");
    let texts: std::collections::BTreeSet<String> = (0..160)
        .map(|bit| {
            let mut dice = [0; 20];
            dice[bit / 8] = 1 << (bit % 8);
            of(dice)
        })
        .collect();
    assert_eq!(texts.len(), 160);
}
