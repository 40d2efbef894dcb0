import { useSearchParams } from 'react-router';

/** The creation dialog is part of the address (`?new=environment`): it can be linked, and Back closes it. */
export function useCreateDialog(): { open: boolean; show: () => void; hide: () => void } {
  const [params, setParams] = useSearchParams();
  const change = (value: string | null) =>
    setParams(
      (before) => {
        const next = new URLSearchParams(before);
        if (value === null) next.delete('new');
        else next.set('new', value);
        return next;
      },
      { replace: value === null },
    );
  return {
    open: params.get('new') === 'environment',
    show: () => change('environment'),
    hide: () => change(null),
  };
}
