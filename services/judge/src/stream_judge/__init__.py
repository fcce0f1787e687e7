"""STREAM's judge: scores a request, how likely each tier's model is to answer it well."""

VERSION = "0.1.0"
