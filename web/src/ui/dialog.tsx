import { X } from 'lucide-react';
import { AlertDialog as RadixAlert, Dialog as Radix } from 'radix-ui';
import { useState, type SyntheticEvent, type ReactNode } from 'react';
import { Button, IconButton } from './button';
import { cn } from './cn';
import { Field } from './field';
import { useFocusBack } from './focus-back';
import { Input } from './input';

const OVERLAY = 'fixed inset-0 z-40 bg-scrim data-[state=open]:animate-fade';

/** On a phone, a sheet from below; else a panel in the middle. */
const PANEL =
  'fixed z-50 flex flex-col border border-line bg-raised shadow-lg outline-none ' +
  'max-md:inset-x-0 max-md:bottom-0 max-md:max-h-[92dvh] max-md:rounded-t-xl max-md:border-b-0 max-md:data-[state=open]:animate-sheet ' +
  'md:top-1/2 md:left-1/2 md:max-h-[min(85vh,760px)] md:w-[calc(100vw-32px)] md:-translate-x-1/2 md:-translate-y-1/2 md:rounded-xl md:data-[state=open]:animate-fade';

const WIDTHS = { sm: 'md:max-w-md', md: 'md:max-w-xl', lg: 'md:max-w-3xl' };

export type DialogProps = {
  open: boolean;
  onOpenChange: (open: boolean) => void;
  title: ReactNode;
  description?: ReactNode;
  width?: keyof typeof WIDTHS;
  /** Buttons, right-aligned at the end; stays in view while the body scrolls. */
  footer?: ReactNode;
  children?: ReactNode;
  /** Keeps it open on a click outside: for forms with something typed. */
  sticky?: boolean;
};

export function Dialog({
  open,
  onOpenChange,
  title,
  description,
  width = 'md',
  footer,
  children,
  sticky = false,
}: DialogProps) {
  const focusBack = useFocusBack();
  return (
    <Radix.Root open={open} onOpenChange={onOpenChange}>
      <Radix.Portal>
        <Radix.Overlay className={OVERLAY} />
        <Radix.Content
          className={cn(PANEL, WIDTHS[width])}
          {...focusBack}
          {...(description === undefined ? { 'aria-describedby': undefined } : {})}
          onInteractOutside={(event) => {
            if (sticky) event.preventDefault();
          }}
        >
          <header className="flex items-start gap-3 px-5 pt-4 pb-3">
            <div className="min-w-0 flex-1 pt-1 pr-9">
              <Radix.Title className="text-lg font-semibold">{title}</Radix.Title>
              {description !== undefined && (
                <Radix.Description className="mt-1 text-sm text-fg-2">{description}</Radix.Description>
              )}
            </div>
          </header>
          <div className="min-h-0 flex-1 overflow-y-auto px-5 pt-1 pb-5">{children}</div>
          {footer !== undefined && (
            <footer className="flex flex-wrap items-center justify-end gap-2 border-t border-line px-5 py-3 max-md:pb-[max(12px,env(safe-area-inset-bottom))]">
              {footer}
            </footer>
          )}
          {/* Last, so that the first thing to be done has the focus when it opens. */}
          <Radix.Close asChild>
            <IconButton label="Close" icon={X} className="absolute top-3.5 right-3.5" />
          </Radix.Close>
        </Radix.Content>
      </Radix.Portal>
    </Radix.Root>
  );
}

export const DialogClose = Radix.Close;

export type ConfirmProps = {
  open: boolean;
  onOpenChange: (open: boolean) => void;
  title: ReactNode;
  /** What will be lost, in plain words. */
  children?: ReactNode;
  action: string;
  /** Asked to be typed before the action can be taken: for what cannot be undone. */
  typedName?: string | undefined;
  busy?: boolean;
  onConfirm: () => void;
};

export function ConfirmDialog({
  open,
  onOpenChange,
  title,
  children,
  action,
  typedName,
  busy = false,
  onConfirm,
}: ConfirmProps) {
  const focusBack = useFocusBack();
  return (
    <RadixAlert.Root open={open} onOpenChange={onOpenChange}>
      <RadixAlert.Portal>
        <RadixAlert.Overlay className={OVERLAY} />
        <RadixAlert.Content
          className={cn(PANEL, WIDTHS.sm)}
          {...focusBack}
          onOpenAutoFocus={(event) => {
            focusBack.onOpenAutoFocus();
            // Else Cancel has the focus, which is right where nothing is to be typed.
            const box = (event.currentTarget as HTMLElement | null)?.querySelector('input');
            if (!box) return;
            event.preventDefault();
            box.focus();
          }}
        >
          <ConfirmBody title={title} action={action} typedName={typedName} busy={busy} onConfirm={onConfirm}>
            {children}
          </ConfirmBody>
        </RadixAlert.Content>
      </RadixAlert.Portal>
    </RadixAlert.Root>
  );
}

function ConfirmBody({
  title,
  children,
  action,
  typedName,
  busy = false,
  onConfirm,
}: Omit<ConfirmProps, 'open' | 'onOpenChange'>) {
  const [typed, setTyped] = useState('');
  const ready = typedName === undefined || typed === typedName;
  const submit = (event: SyntheticEvent) => {
    event.preventDefault();
    if (ready && !busy) onConfirm();
  };
  return (
    <form onSubmit={submit} className="flex min-h-0 flex-col">
      <div className="min-h-0 overflow-y-auto px-5 pt-5 pb-4">
        <RadixAlert.Title className="text-lg font-semibold">{title}</RadixAlert.Title>
        <RadixAlert.Description asChild>
          <div className="mt-2 flex flex-col gap-2 text-sm text-fg-2">{children}</div>
        </RadixAlert.Description>
        {typedName !== undefined && (
          <Field
            className="mt-4"
            label={
              <>
                Type <code className="rounded-sm bg-sunken px-1 py-0.5 font-mono">{typedName}</code> to
                confirm
              </>
            }
          >
            {(control) => (
              <Input
                {...control}
                value={typed}
                onChange={(event) => setTyped(event.target.value)}
                autoComplete="off"
                autoCapitalize="off"
                spellCheck={false}
              />
            )}
          </Field>
        )}
      </div>
      <footer className="flex justify-end gap-2 border-t border-line px-5 py-3 max-md:pb-[max(12px,env(safe-area-inset-bottom))]">
        <RadixAlert.Cancel asChild>
          <Button>Cancel</Button>
        </RadixAlert.Cancel>
        <Button type="submit" variant="danger" disabled={!ready} busy={busy}>
          {action}
        </Button>
      </footer>
    </form>
  );
}
