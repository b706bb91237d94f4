//! The shipped plugins as components, compiled by the build script.

/// `(name, component)` of every shipped plugin; the file is `NAME.wasm` wherever it is written.
pub const SHIPPED: &[(&str, &[u8])] = include!(concat!(env!("OUT_DIR"), "/guests.rs"));

/// The component of the shipped plugin `name`.
pub fn shipped(name: &str) -> Option<&'static [u8]> {
    SHIPPED
        .iter()
        .find(|plugin| plugin.0 == name)
        .map(|plugin| plugin.1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shipped_plugins_are_components() {
        for (name, bytes) in SHIPPED {
            // The magic number and the version of a component; a core module has 1, 0, 0, 0.
            assert!(bytes.starts_with(b"\0asm\x0d\0\x01\0"), "{name}");
        }
        assert_eq!(shipped("threshold"), Some(SHIPPED[0].1));
        assert_eq!(shipped("nonesuch"), None);
    }
}
