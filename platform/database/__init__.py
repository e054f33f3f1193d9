"""SQLAlchemy schema, queries and migrations: the only room that speaks SQL."""
