//! A JSON document whose fields keep the order in which the server wrote them, printed as JSON or YAML.
//!
//! The answers are printed whole, also fields that this version does not know.

use std::fmt;

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{MapAccess, SeqAccess, Visitor},
    ser::SerializeMap,
};

use super::text;

#[derive(Debug, Clone, PartialEq)]
pub enum Json {
    Null,
    Bool(bool),
    Number(serde_json::Number),
    Text(String),
    List(Vec<Json>),
    Map(Vec<(String, Json)>),
}

impl Json {
    pub fn of<T: Serialize + ?Sized>(value: &T) -> Result<Self, serde_json::Error> {
        serde_json::from_str(&serde_json::to_string(value)?)
    }

    /// The document as a value of ours.
    pub fn read<T: serde::de::DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        serde_json::from_str(&serde_json::to_string(self)?)
    }

    /// Adds a field to a map; anything else stays as it is.
    pub fn set(&mut self, key: &str, value: Self) {
        if let Self::Map(entries) = self {
            entries.push((key.into(), value));
        }
    }

    pub fn to_pretty(&self) -> Result<String, serde_json::Error> {
        serde_json::to_string_pretty(self).map(|text| escaped(&text))
    }

    /// On one line.
    pub fn to_line(&self) -> Result<String, serde_json::Error> {
        serde_json::to_string(self).map(|text| escaped(&text))
    }

    pub fn to_yaml(&self) -> Result<String, serde_saphyr::ser::Error> {
        serde_saphyr::to_string(&self.without_controls())
    }

    /// YAML writers differ in what they escape, so nothing that needs it is left to them.
    fn without_controls(&self) -> Self {
        match self {
            Self::Null | Self::Bool(_) | Self::Number(_) => self.clone(),
            Self::Text(text) => Self::Text(text::lines(text)),
            Self::List(items) => Self::List(items.iter().map(Self::without_controls).collect()),
            Self::Map(entries) => Self::Map(
                entries.iter().map(|(key, value)| (text::line(key), value.without_controls())).collect(),
            ),
        }
    }
}

/// JSON itself asks only for some control characters to be escaped. What is left of them is inside of strings.
fn escaped(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    for c in json.chars() {
        if c != '\n' && text::is_hostile(c) {
            out.push_str(&format!("\\u{:04x}", u32::from(c)));
        } else {
            out.push(c);
        }
    }
    out
}

impl Serialize for Json {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Null => serializer.serialize_unit(),
            Self::Bool(value) => serializer.serialize_bool(*value),
            Self::Number(value) => value.serialize(serializer),
            Self::Text(value) => serializer.serialize_str(value),
            Self::List(items) => serializer.collect_seq(items),
            Self::Map(entries) => {
                let mut map = serializer.serialize_map(Some(entries.len()))?;
                for (key, value) in entries {
                    map.serialize_entry(key, value)?;
                }
                map.end()
            }
        }
    }
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Reader)
    }
}

struct Reader;

impl<'de> Visitor<'de> for Reader {
    type Value = Json;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Json, E> {
        Ok(Json::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Json, E> {
        Ok(Json::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Json, E> {
        Ok(Json::Number(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Json, E> {
        Ok(Json::Number(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Json, E> {
        Ok(serde_json::Number::from_f64(value).map_or(Json::Null, Json::Number))
    }

    fn visit_str<E>(self, value: &str) -> Result<Json, E> {
        Ok(Json::Text(value.into()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Json, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = access.next_element()? {
            items.push(item);
        }
        Ok(Json::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Json, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = access.next_entry()? {
            entries.push(entry);
        }
        Ok(Json::Map(entries))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Json {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn fields_keep_the_order_of_the_server() {
        let text = r#"{"services":[{"project":"default","name":"api","pid":null,"ready":true,"n":1.5}]}"#;
        assert_eq!(read(text).to_line().unwrap(), text);
    }

    #[test]
    fn no_form_prints_a_control_character_raw() {
        let hostile = read("{\"m\":\"\\u001b[31m\u{9b}\\u007f\u{202e}\"}");
        for printed in [hostile.to_pretty().unwrap(), hostile.to_line().unwrap(), hostile.to_yaml().unwrap()]
        {
            assert!(!printed.chars().any(|c| c != '\n' && text::is_hostile(c)), "{printed:?}");
        }
        // The JSON form still means the same.
        assert_eq!(read(&hostile.to_pretty().unwrap()), hostile);
    }

    #[test]
    fn yaml_reads_as_the_same_document() {
        let document = read(r#"{"b":[1,"two",null,{"c":"yes"}],"a":{"empty":[],"text":"a: b # c"}}"#);
        let yaml = document.to_yaml().unwrap();
        assert_eq!(serde_saphyr::from_str::<Json>(&yaml).unwrap(), document, "{yaml}");
    }
}
