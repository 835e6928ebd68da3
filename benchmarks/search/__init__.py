"""Our samplers beside other people's, on search problems whose answers are known without a model."""
