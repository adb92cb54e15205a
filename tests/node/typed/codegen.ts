// npx graphql-codegen --config typed/codegen.ts: documents with the types of schema.graphql.
import type { CodegenConfig } from '@graphql-codegen/cli';

const config: CodegenConfig = {
  schema: '../../schema.graphql',
  documents: 'typed/app.ts',
  generates: { 'typed/generated/': { preset: 'client', config: { useTypeImports: true, strictScalars: true, scalars: { DateTime: 'string', JSON: 'unknown' } } } },
};

export default config;
