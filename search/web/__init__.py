"""The dashboard in the browser: what it shows, where its artifacts come from, who gets in."""
