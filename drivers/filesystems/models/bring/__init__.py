"""Models from elsewhere and to elsewhere: folders, the hub, other formats, another LLM OS."""
