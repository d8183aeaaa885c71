//! From records to a route table, and its lookups.
