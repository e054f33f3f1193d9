"""Models answering requests: Serve applications that front scoring containers. Knows no API and no database."""
