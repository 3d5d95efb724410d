"""Where people are: the command line, and later the web console and Slack."""
