//! The cookies of one identity: parsing, storage and the `Cookie` header, by rfc6265bis.
