"""LangChain's own integration tests for embeddings, with OpenAIEmbeddings as the client."""

from langchain_openai import OpenAIEmbeddings
from langchain_tests.integration_tests import EmbeddingsIntegrationTests


class TestStream(EmbeddingsIntegrationTests):
    """OpenAIEmbeddings against our server."""

    @property
    def embeddings_class(self):
        return OpenAIEmbeddings

    @property
    def embedding_model_params(self):
        # Otherwise it sends the numbers of OpenAI's own tokens, which another model's engine can't know.
        return {"model": "vectors", "check_embedding_ctx_length": False}
