import { useMutation, useQuery, useQueryClient } from '@tanstack/react-query';
import { api, at } from './client';
import type { components } from './schema';

export type Variable = components['schemas']['VariableView'];
export type InheritedVariable = components['schemas']['InheritedView'];
export type VariableWish = { name: string; value?: string; isSecret: boolean };

/** `environmentId` undefined: the variables of all of one's environments. */
export const variableKeys = {
  list: (environmentId: string | undefined) => ['variables', environmentId ?? 'all'] as const,
};

function address(environmentId: string | undefined, name?: string): string {
  const list =
    environmentId === undefined
      ? '/api/variables'
      : at('/api/environments/{environment}/variables', environmentId);
  return name === undefined ? list : `${list}/${encodeURIComponent(name)}`;
}

export function useVariables(environmentId?: string) {
  return useQuery({
    queryKey: variableKeys.list(environmentId),
    queryFn: ({ signal }) =>
      api.get<{ variables: Variable[]; inherited?: InheritedVariable[] }>(address(environmentId), { signal }),
  });
}

/** Sets a variable; without a value it keeps the one that it has. */
export function usePutVariable(environmentId?: string) {
  const queries = useQueryClient();
  return useMutation({
    mutationFn: ({ name, ...body }: VariableWish) =>
      api.put<Variable>(address(environmentId, name), { body }),
    onSettled: () => queries.invalidateQueries({ queryKey: ['variables'] }),
  });
}

export function useDeleteVariable(environmentId?: string) {
  const queries = useQueryClient();
  return useMutation({
    mutationFn: (name: string) => api.delete<unknown>(address(environmentId, name)),
    onSettled: () => queries.invalidateQueries({ queryKey: ['variables'] }),
  });
}
