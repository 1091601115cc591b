//! How numbers and nulls are read and written.

use std::fmt;

use serde::de::{self, Deserialize, Deserializer, SeqAccess, Visitor};
use serde::ser::Serializer;

/// What a fractional number should have been. Shown to users.
const WHOLE_NUMBER: &str = "a whole number";

/// An integer as Flagger's CRDs declare it: `type: number`, so that `10.0` is admitted and means 10.
struct Whole(i64);

impl<'de> Deserialize<'de> for Whole {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct WholeVisitor;

        impl Visitor<'_> for WholeVisitor {
            type Value = Whole;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str(WHOLE_NUMBER)
            }

            fn visit_i64<E: de::Error>(self, value: i64) -> Result<Whole, E> {
                Ok(Whole(value))
            }

            fn visit_u64<E: de::Error>(self, value: u64) -> Result<Whole, E> {
                i64::try_from(value).map(Whole).map_err(|_| E::invalid_value(de::Unexpected::Unsigned(value), &self))
            }

            fn visit_f64<E: de::Error>(self, value: f64) -> Result<Whole, E> {
                // Beyond 2^53 a float no longer says which integer was meant.
                const EXACT: f64 = 9_007_199_254_740_992.0;
                if value.fract() != 0.0 || value.abs() > EXACT {
                    return Err(E::invalid_value(de::Unexpected::Float(value), &self));
                }
                #[allow(clippy::cast_possible_truncation, reason = "whole and within 2^53")]
                Ok(Whole(value as i64))
            }
        }

        deserializer.deserialize_any(WholeVisitor)
    }
}

/// Reads a required integer.
pub(crate) fn whole<'de, D: Deserializer<'de>>(deserializer: D) -> Result<i64, D::Error> {
    Whole::deserialize(deserializer).map(|whole| whole.0)
}

/// Reads an integer that is 0 when null, as Go does.
pub(crate) fn whole_or_zero<'de, D: Deserializer<'de>>(deserializer: D) -> Result<i64, D::Error> {
    optional_whole(deserializer).map(Option::unwrap_or_default)
}

/// Reads an optional integer.
pub(crate) fn optional_whole<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<i64>, D::Error> {
    Option::<Whole>::deserialize(deserializer).map(|whole| whole.map(|whole| whole.0))
}

/// Reads a list of integers; null is an empty list.
pub(crate) fn whole_list<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<i64>, D::Error> {
    struct ListVisitor;

    impl<'de> Visitor<'de> for ListVisitor {
        type Value = Vec<i64>;

        fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
            formatter.write_str("a list of whole numbers")
        }

        fn visit_unit<E: de::Error>(self) -> Result<Vec<i64>, E> {
            Ok(Vec::new())
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Vec<i64>, A::Error> {
            let mut list = Vec::new();
            while let Some(Whole(item)) = items.next_element()? {
                list.push(item);
            }
            Ok(list)
        }
    }

    deserializer.deserialize_any(ListVisitor)
}

/// Reads null as the default, as Go does with lists, maps and strings.
pub(crate) fn null_as_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Option::<T>::deserialize(deserializer).map(Option::unwrap_or_default)
}

/// Writes a whole float without its `.0`, as Go does: `99`, not `99.0`.
pub(crate) fn float_as_go<S: Serializer>(value: &Option<f64>, serializer: S) -> Result<S::Ok, S::Error> {
    // Beyond 2^53 not every integer has a float, so the shorter form would claim a precision that is not there.
    const EXACT: f64 = 9_007_199_254_740_992.0;
    match *value {
        None => serializer.serialize_none(),
        #[allow(clippy::cast_possible_truncation, reason = "whole and within 2^53")]
        Some(float) if float.fract() == 0.0 && float.abs() <= EXACT => serializer.serialize_i64(float as i64),
        Some(float) => serializer.serialize_f64(float),
    }
}
