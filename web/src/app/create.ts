import { useSearchParams } from 'react-router';

type Opened = { open: boolean; show: () => void; hide: () => void };

/** A dialog that is part of the address (`?new=WHAT`): it can be linked, and Back closes it. */
function useDialogAt(what: string): Opened {
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
    open: params.get('new') === what,
    show: () => change(what),
    hide: () => change(null),
  };
}

export function useCreateDialog(): Opened {
  return useDialogAt('environment');
}

/** The box that starts an agent. */
export function useTaskDialog(): Opened {
  return useDialogAt('task');
}

export function useAgentDialog(): Opened {
  return useDialogAt('agent');
}
