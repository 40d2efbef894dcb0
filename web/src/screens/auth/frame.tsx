import type { ReactNode } from 'react';
import { Logo } from '@/app/logo';
import { Card } from '@/ui/list';

/** The frame of the pages that need no sign-in. */
export function AuthFrame({
  title,
  lead,
  children,
  after,
}: {
  title: string;
  lead?: ReactNode;
  children: ReactNode;
  after?: ReactNode;
}) {
  return (
    <main className="flex min-h-dvh flex-col items-center justify-center bg-canvas px-4 py-10">
      <title>{`${title} · Craftastic`}</title>
      <div className="w-full max-w-sm">
        <div className="mb-6 flex flex-col items-center text-center">
          <Logo className="mb-4 size-11" />
          <h1 className="text-xl font-semibold tracking-tight">{title}</h1>
          {lead !== undefined && <p className="mt-1 text-sm text-fg-2">{lead}</p>}
        </div>
        <Card className="rounded-xl p-5 shadow-md sm:p-6">{children}</Card>
        {after !== undefined && <p className="mt-5 text-center text-sm text-fg-2">{after}</p>}
      </div>
    </main>
  );
}

export const TEXT_LINK = 'rounded-sm font-medium text-accent-fg underline-offset-2 hover:underline';
