import type { ReactNode } from 'react';
import { Button } from '@/ui/button';
import { CodeBlock } from '@/ui/code';
import { Dialog } from '@/ui/dialog';

/** A secret that is shown once and kept nowhere; a click beside the dialog does not lose it. */
export function ShownOnce({
  title,
  secret,
  label,
  onClose,
  children,
}: {
  title: string;
  secret: string;
  /** What the secret is, for screen readers. */
  label: string;
  onClose: () => void;
  /** What it is good for, and for how long. */
  children: ReactNode;
}) {
  return (
    <Dialog
      open
      sticky
      onOpenChange={(open) => {
        if (!open) onClose();
      }}
      title={title}
      description="Copy it now: it is shown this once."
      footer={
        <Button variant="primary" onClick={onClose}>
          Done
        </Button>
      }
    >
      <div className="flex flex-col gap-3">
        <CodeBlock code={secret} label={label} wrap />
        <div className="text-sm text-fg-2">{children}</div>
      </div>
    </Dialog>
  );
}
