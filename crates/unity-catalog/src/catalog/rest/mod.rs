//! A Unity Catalog server, over its REST API.
