"""The routes that programs written for the OpenAI API use."""
