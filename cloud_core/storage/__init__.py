"""Where state lives: one interface, implemented on SQLite and PostgreSQL with group commit."""
