//! The record store: typed queries, transactions and the change feed, over SQLite.
