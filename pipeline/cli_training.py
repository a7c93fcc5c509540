"""`speechchat export` and `speechchat release`: what leaves for trainers and hubs."""
