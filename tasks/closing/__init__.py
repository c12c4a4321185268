"""Results to tables: a run is compared with the store, and what it gave is written, told and exported."""
