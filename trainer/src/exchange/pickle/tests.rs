use super::*;

fn parse(bytes: &[u8]) -> Pickle {
    Pickle::parse(bytes).unwrap()
}

fn why(bytes: &[u8]) -> String {
    Pickle::parse(bytes).unwrap_err().why
}

/// What `pickle.dumps({'a': [1, -2, 70000, 2**40, 1.5, None, True], 'b': ('x', b'y'), 'c': {3}}, protocol)` gives.
const PROTOCOL_2: &[u8] = b"\x80\x02}q\x00(X\x01\x00\x00\x00aq\x01]q\x02(K\x01J\xfe\xff\xff\xffJp\x11\x01\x00\x8a\x06\x00\x00\x00\x00\x00\x01\
    G?\xf8\x00\x00\x00\x00\x00\x00N\x88eX\x01\x00\x00\x00bq\x03X\x01\x00\x00\x00xq\x04c_codecs\nencode\nq\x05X\x01\x00\x00\x00yq\x06X\x06\x00\x00\x00\
    latin1q\x07\x86q\x08Rq\t\x86q\nX\x01\x00\x00\x00cq\x0bc__builtin__\nset\nq\x0c]q\rK\x03a\x85q\x0eRq\x0fu.";
const PROTOCOL_4: &[u8] = b"\x80\x04\x95D\x00\x00\x00\x00\x00\x00\x00}\x94(\x8c\x01a\x94]\x94(K\x01J\xfe\xff\xff\xffJp\x11\x01\x00\x8a\x06\x00\x00\x00\
    \x00\x00\x01G?\xf8\x00\x00\x00\x00\x00\x00N\x88e\x8c\x01b\x94\x8c\x01x\x94C\x01y\x94\x86\x94\x8c\x01c\x94\x8f\x94(K\x03\x90u.";

#[test]
fn values_of_two_protocols() {
    for bytes in [PROTOCOL_2, PROTOCOL_4] {
        let pickle = parse(bytes);
        let items = pickle.items(pickle.root()).unwrap();
        assert_eq!(items.len(), 3);
        let Value::List(list) = pickle.get(pickle.find(items, "a").unwrap()) else { panic!("no list") };
        let list: Vec<_> = list.iter().map(|id| pickle.get(*id).clone()).collect();
        let ints = [1, -2, 70_000, 1 << 40].map(Value::Int);
        assert_eq!(list, [&ints[..], &[Value::Float(1.5), Value::None, Value::Bool(true)]].concat());
        let Value::Tuple(pair) = pickle.get(pickle.find(items, "b").unwrap()) else { panic!("no tuple") };
        assert_eq!(pickle.text(pair[0]), Some("x"));
        assert_eq!(pickle.find(items, "d"), None);
    }
    let pickle = parse(PROTOCOL_2);
    let items = pickle.items(pickle.root()).unwrap();
    let (name, arguments) = pickle.call(pickle.find(items, "c").unwrap()).unwrap();
    assert_eq!((name, arguments.len()), ("__builtin__.set", 1));
}

/// `os.system('true')` is an object that nobody asks for.
#[test]
fn a_call_is_only_written_down() {
    let pickle = parse(b"\x80\x02cos\nsystem\nX\x04\x00\x00\x00true\x85R.");
    let (name, arguments) = pickle.call(pickle.root()).unwrap();
    assert_eq!((name, pickle.text(arguments[0])), ("os.system", Some("true")));
    assert_eq!(pickle.describe(pickle.root()), "an object of os.system");
}

#[test]
fn what_contains_itself_is_a_value() {
    let pickle = parse(b"\x80\x02]q\x00h\x00a.");
    assert_eq!(pickle.get(pickle.root()), &Value::List(vec![pickle.root()]));
    // Nested deeper than any stack of calls would bear.
    let deep = [&b"\x80\x02"[..], &vec![b']'; 1 << 20], &vec![b'a'; (1 << 20) - 1], b"."].concat();
    assert_eq!(parse(&deep).len(), 1 << 20);
}

#[test]
fn integers_of_any_width() {
    for (bytes, value) in [
        (&b"\x8a\x00"[..], 0),
        (b"\x8a\x01\xff", -1),
        (b"\x8a\x02\xff\x00", 255),
        (b"\x8a\x08\x00\x00\x00\x00\x00\x00\x00\x80", i64::MIN),
        (b"\x8b\x01\x00\x00\x00\x80", -128),
        (b"M\xff\xff", 65_535),
    ] {
        let pickle = parse(&[b"\x80\x02", bytes, b"."].concat());
        assert_eq!(pickle.get(pickle.root()), &Value::Int(value), "{bytes:?}");
    }
    let wide = parse(b"\x80\x02\x8a\x09\x00\x00\x00\x00\x00\x00\x00\x00\x01.");
    assert_eq!(wide.get(wide.root()), &Value::Wide);
}

#[test]
fn what_is_broken_is_named() {
    for (bytes, words) in [
        (&b""[..], "it ends before its end"),
        (b"\x80\x06N.", "protocol 6"),
        (b"\x80\x02X\xff\xff\xff\xffab.", "4294967295 bytes are announced, and 3 are left"),
        (b"\x80\x04\x8d\xff\xff\xff\xff\xff\xff\xff\xffab.", "18446744073709551615 bytes are announced"),
        (b"\x80\x02\x8b\xff\xff\xff\xff.", "bytes are announced"),
        (b"\x80\x02h\x07.", "nothing is remembered as 7"),
        (b"\x80\x02.", "the stack is empty"),
        (b"\x80\x02N(.", "the stack is empty"),
        (b"\x80\x02N\x86.", "the stack is empty"),
        (b"\x80\x02q\x00.", "the stack is empty"),
        (b"\x80\x02t.", "there is no mark"),
        (b"\x80\x02}(Nu.", "a key has no value"),
        (b"\x80\x02N(NNu.", "no dict"),
        (b"\x80\x02NNa.", "no list"),
        (b"\x80\x02NNb.", "no object"),
        (b"\x80\x02NN\x93.", "a name is no text"),
        (b"\x80\x02cos\nsystem", "a line has no end"),
        (b"\x80\x02i.", "instruction 0x69 is not known"),
    ] {
        assert!(why(bytes).contains(words), "{bytes:?}: {}", why(bytes));
    }
    assert_eq!(Pickle::parse(b"\x80\x02NN\xff").unwrap_err().at, 4);
}

/// Cut anywhere and with any byte changed in any of its bits: an answer, never a panic.
#[test]
fn broken_ones_are_refused_or_read() {
    for bytes in [PROTOCOL_2, PROTOCOL_4] {
        for end in 0..bytes.len() {
            assert!(Pickle::parse(&bytes[..end]).is_err(), "{end}");
        }
        let mut refused = 0;
        for at in 0..bytes.len() {
            for change in 1..=255 {
                let mut other = bytes.to_vec();
                other[at] ^= change;
                match Pickle::parse(&other) {
                    Ok(pickle) => assert!(pickle.len() <= other.len()),
                    Err(broken) => {
                        assert!(broken.at < other.len() || broken.why.contains("ends"), "{broken:?}");
                        refused += 1;
                    }
                }
            }
        }
        assert!(refused > 1000, "{refused}");
    }
}
