import { Toaster as Sonner, toast as sonner } from 'sonner';
import { explain } from '@/api/errors';

const UNDO_MS = 8_000;

type Options = { description?: string; undo?: () => void; action?: { label: string; onClick: () => void } };

function options({ description, undo, action }: Options) {
  const chosen = undo ? { label: 'Undo', onClick: undo } : action;
  return {
    ...(description === undefined ? {} : { description }),
    ...(chosen ? { action: chosen } : {}),
    ...(undo ? { duration: UNDO_MS } : {}),
  };
}

/** Short news at the edge of the page. What must not be missed does not belong here. */
export const toast = {
  ok: (title: string, more: Options = {}) => sonner.success(title, options(more)),
  note: (title: string, more: Options = {}) => sonner(title, options(more)),
  /** Says what failed and why, with the request id where the server gave one. */
  failed: (title: string, error: unknown, more: Options = {}) => {
    const { reason, requestId } = explain(error);
    const description = requestId === undefined ? reason : `${reason} (request ${requestId})`;
    return sonner.error(title, { ...options({ description, ...more }), duration: 10_000 });
  },
  dismiss: (id?: string | number) => sonner.dismiss(id),
};

export function Toaster({ theme }: { theme: 'light' | 'dark' }) {
  return (
    <Sonner
      theme={theme}
      position="bottom-right"
      mobileOffset={{ bottom: 'calc(var(--tabs-height) + 16px)' }}
      gap={8}
      toastOptions={{
        unstyled: true,
        classNames: {
          toast:
            'flex w-full items-start gap-3 font-sans rounded-lg border border-line bg-raised p-3 text-sm text-fg shadow-lg md:w-[360px]',
          title: 'font-medium',
          description: 'mt-0.5 text-fg-2 break-words',
          content: 'min-w-0 flex-1',
          icon: 'mt-0.5 size-4 shrink-0',
          success: '[&_[data-icon]]:text-ok',
          error: '[&_[data-icon]]:text-bad',
          actionButton:
            'shrink-0 rounded-md border border-line bg-surface px-2.5 py-1 text-sm font-medium text-fg hover:border-line-strong pointer-coarse:min-h-11',
        },
      }}
    />
  );
}
