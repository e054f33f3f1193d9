"""Jobs of several algorithms that train side by side: what they are made of, and how they end."""
